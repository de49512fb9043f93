"""``python -m gpucnn COMMAND`` is ``gpucnn COMMAND``."""

from gpucnn.cli.main import command

if __name__ == "__main__":
    command()
