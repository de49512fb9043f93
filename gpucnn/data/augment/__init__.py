"""What happens to training images."""
