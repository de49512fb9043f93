"""Settings and numbers that no run has: name -> what is done to the checkpoint of a run, which is sealed again."""

import json
import re
from collections.abc import Callable

import h5py
import numpy as np
from hostile_checkpoints import replace, text


def config(change: Callable[[str], str]) -> Callable[[h5py.File], object]:
    """Change the text of the settings."""
    return lambda file: text("config", change(file["config"].asstr()[()]).encode())(file)


def value(key: str, toml: str) -> Callable[[h5py.File], object]:
    """Give a setting another value."""
    return config(lambda found: re.sub(rf"(?m)^{key} = .*$", lambda match: f"{key} = {toml}", found, count=1))


def added(lines: str) -> Callable[[h5py.File], object]:
    return config(lambda found: f"{found}\n{lines}\n")


def names(first: str) -> str:
    """Ten names of classes."""
    return json.dumps([first, *"123456789"])


def progress(name: str, number: object) -> Callable[[h5py.File], object]:
    return replace(f"progress/{name}", data=number)


def column(name: str, values: object, kind: str = "float64") -> Callable[[h5py.File], object]:
    return replace(f"history/{name}", data=np.array(values, kind))


def emptied(group: str) -> Callable[[h5py.File], object]:
    return lambda file: [file.__delitem__(f"{group}/{name}") for name in list(file[group])]


def layers(*tables: str) -> Callable[[h5py.File], object]:
    """Make the net one of these layers."""
    return lambda file: (value("name", '"custom"')(file), value("layers", f"[{', '.join(tables)}]")(file))


HEAD = '{layer = "Flatten"}', '{layer = "Linear", out_features = "classes"}'
CONV = '{layer = "Conv2D", kernel_size = 1, out_channels = '


def nested(table: str, times: int) -> str:
    """A layer in branches of branches."""
    return '{layer = "Residual", body = [' * times + table + "]}" * times


NAN, INF, CHAIN = float("nan"), float("inf"), "a" + ".a" * 20_000

RUNS: dict[str, Callable[[h5py.File], object]] = {
    "no progress": emptied("progress"),
    "no batch": lambda file: file.__delitem__("progress/batch"),
    **{f"{name} is NaN": progress(name, NAN) for name in ("best_accuracy", "best_epoch", "loss_sum", "examples")},
    **{f"{name} is infinite": progress(name, INF) for name in ("best_accuracy", "batch", "loss_sum", "loss_scale")},
    **{f"{name} is -1": progress(name, -1) for name in ("best_epoch", "batch", "correct", "examples", "good_steps")},
    **{f"{name} is 2^63 - 1": progress(name, 2**63 - 1) for name in ("batch", "correct", "examples", "good_steps")},
    "a whole best accuracy": progress("best_accuracy", 1),
    "best accuracy of 2": progress("best_accuracy", 2.0),
    "best epoch to come": progress("best_epoch", 2),
    "loss scale of 0": progress("loss_scale", 0.0),
    "denormal loss scale": progress("loss_scale", 5e-324),
    "fractional epochs": column("epoch", [1.0]),
    "epoch 0": column("epoch", [0], "int64"),
    "epoch 2^62": column("epoch", [2**62], "int64"),
    "epoch NaN": column("epoch", [NAN]),
    "no epochs": lambda file: file.__delitem__("history/epoch"),
    "no history": emptied("history"),
    "a column NaN": column("NaN", [1.0]),
    "a column fewer": lambda file: file.__delitem__("history/learning_rate"),
    "accuracy of -3": column("test_accuracy", [-3.0]),
    "loss of 1e308": column("test_loss", [1e308]),
    "rate of -1": column("learning_rate", [-1.0]),
    "63 columns more": lambda file: [file.create_dataset(f"history/c{i}", data=np.zeros(1)) for i in range(63)],
    "step 2^63 - 1": lambda file: (progress("step", 2**63 - 1)(file), file.attrs.__setitem__("step", 2**63 - 1)),
    "epochs without history": lambda file: (progress("epoch", 10**9)(file), file.attrs.__setitem__("epoch", 10**9)),
    "optimizer state of another shape": replace("optimizer/velocity/1.weight", data=np.zeros((2, 2), "f4")),
    "empty settings": text("config", b"\n"),
    "an integer of 400 digits": value("epochs", "9" * 400),
    "an integer of 5,000 digits": value("epochs", "9" * 5000),
    "an integer of 12,000 digits in hexadecimal": value("epochs", f"0x{'f' * 10_000}"),
    "the same for a fraction": value("lr", f"0x{'f' * 10_000}"),
    "1e400": value("lr", "1e400"),
    "a date": value("epochs", "1979-05-27"),
    "true for an integer": value("epochs", "true"),
    "batches of 10^13": value("batch_size", str(10**13)),
    "10^9 threads": value("threads", str(10**9)),
    "gamma of 1e200": value("gamma", "1e200"),
    "GPU memory of 400 digits": value("memory_limit", json.dumps("9" * 400)),
    "20,000 milestones": value("milestones", f"[{'1, ' * 20_000}]"),
    "images without a shape": value("input_shape", "[]"),
    "images without height": value("input_shape", "[0, 8, 1]"),
    "images of negative height": value("input_shape", "[-8, 8, 1]"),
    "images of 10^9 pixels a side": value("input_shape", f"[{10**9}, {10**9}, 1]"),
    "images in four dimensions": value("input_shape", "[8, 8, 1, 1]"),
    "true for a height": value("input_shape", "[true, 8, 1]"),
    "no classes": value("num_classes", "0"),
    "10^10 classes": value("num_classes", str(10**10)),
    "mean NaN": value("mean", "[nan]"),
    "no mean": value("mean", "[]"),
    "three means": value("mean", "[0.1, 0.1, 0.1]"),
    "std 1e-320": value("std", "[1e-320]"),
    "std 0": value("std", "[0.0]"),
    "std infinite": value("std", "[inf]"),
    "one class named": value("classes", '["a"]'),
    "the same name ten times": value("classes", json.dumps(["a"] * 10)),
    "a name with an escape code": value("classes", names("\x1b[2J")),
    "a name with DEL": value("classes", names("\x7f")),
    "a name with NUL": value("classes", names("\0")),
    "a name of 3 MB": value("classes", names("a" * 3_000_000)),
    "a surrogate": value("classes", r'["\ud800"]'),
    "a dotted key of 40 kB": added(f"[x]\n{CHAIN} = 1"),
    "a dotted header": added(f"[{CHAIN}]"),
    "a dotted key in an inline table": added(f"x = {{{CHAIN} = 1}}"),
    "a dotted key of texts": added(f"{CHAIN.replace('a', chr(34) + 'a' + chr(34))} = 1"),
    "a dotted key behind a text of four quotes": added(f"[x]\ny = {{z = '''a'''', {CHAIN} = 1}}"),
    "a comment of 3 MB": added(f"#{'a' * 3_000_000}"),
    "60,000 lists in lists": added(f"x = {'[' * 60_000}"),
    "30,000 tables in tables": added(f"x = {'{a=' * 30_000}"),
    "60,000 quotes": added("x = " + '"\\' * 60_000),
    "a million keys": added("".join(f"k{i} = 1\n" for i in range(1_000_000))),
    "14,000 keys": added("".join(f"k{i} = 1\n" for i in range(14_000))),
    "14,000 tables": added("".join(f"[x{i}]\n" for i in range(14_000))),
    "a key twice": added("[run]"),
    "an option that is no word": added('"\\u007f" = 2.0'),
    "an option of 400 digits": added(f"width = {'9' * 400}"),
    "layers beside a name": value("layers", f"[{HEAD[0]}]"),
    "custom without layers": value("name", '"custom"'),
    "other layers": layers(*HEAD),
    "layers that are numbers": layers("1", "2"),
    "layers that are lists": layers("[]", "[[]]"),
    "a layer from elsewhere": layers('{layer = "os.system", command = "true"}'),
    "a layer that is no text": layers("{layer = [1]}"),
    "an initializer from elsewhere": layers(HEAD[0], '{layer = "Linear", out_features = 10, weight_init = "exec"}'),
    "an initializer that does not fit": layers(HEAD[0], HEAD[1].replace("}", ', weight_init = "dirac"}')),
    "10^9 channels": layers(CONV + f"{10**9}}}", *HEAD),
    "10^14 parameters": layers(CONV + f"{10**7}}}", CONV + f"{10**7}}}", *HEAD),
    "a kernel of 10^9": layers(f'{{layer = "Conv2D", out_channels = 1, kernel_size = {10**9}, padding = {10**9}}}'),
    "a border of 60,000": layers('{layer = "AvgPool2D", kernel_size = 2, padding = 60000}', *HEAD),
    "an infinite rate": layers('{layer = "Dropout", rate = inf}', *HEAD),
    "a date for a rate": layers('{layer = "Dropout", rate = 1979-05-27}', *HEAD),
    "a key that is no word": layers('{layer = "ReLU", "\\u007f" = 1}', *HEAD),
    "4,000 layers": layers(*['{layer = "ReLU"}'] * 4000),
    "2,400 layers": layers(*[f'{{layer = "Sequential", layers = [{", ".join([CONV + "3}"] * 240)}]}}'] * 10, *HEAD),
    "branches 20 deep": layers(nested('{layer = "ReLU"}', 20), *HEAD),
    "branches 2,000 deep": layers(nested('{layer = "ReLU"}', 2000), *HEAD),
    "a plugin": value("plugins", '["my_layers.py 0123456789abcdef"]'),
    "a plugin with an escape code": value("plugins", r'["\u001b[2J.py 0123456789abcdef"]'),
    "another model": value("name", '"lenet5"'),
    "an unknown model": value("name", '"mlq"'),
}
