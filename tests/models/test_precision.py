"""What `precision: auto` becomes."""

import logging

import pytest

from aligntune.models.precision import _say, resolve

FLAGS = "processor\t: 0\nvendor_id\t: X\nflags\t\t: fpu sse4_2 {}\nbugs\t\t: avx512_bf16\n"


@pytest.fixture
def machine(tmp_path):
    """A device node, a cpuinfo and a driver, of which only what is asked for exists."""

    def build(*, gpu=False, flags=None, capability=None):
        node, cpuinfo = tmp_path / "nvidia0", tmp_path / "cpuinfo"
        if gpu:
            node.touch()
        if flags is not None:
            cpuinfo.write_text(FLAGS.format(flags))
        return {"gpus": (node,), "cpuinfo": cpuinfo, "ask": lambda: capability}

    return build


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_a_chosen_precision_is_kept(precision, machine):
    assert resolve(precision, **machine(gpu=True)) == precision


@pytest.mark.parametrize("flags", ["avx512_bf16", "amx_bf16 amx_tile"])
def test_auto_is_bf16_on_a_cpu_that_has_it(flags, machine):
    assert resolve("auto", **machine(flags=flags)) == "bf16"


@pytest.mark.parametrize("capability", [8.0, 9.0, None])
def test_auto_is_bf16_on_a_gpu(machine, capability):
    here = machine(gpu=True, flags="avx2", capability=capability)
    assert resolve("auto", **here) == "bf16"


@pytest.mark.parametrize("capability", [7.0, 7.5])
def test_auto_is_fp32_on_a_gpu_without_bf16_whatever_its_cpu_has(machine, capability):
    here = machine(gpu=True, flags="avx512_bf16", capability=capability)
    assert resolve("auto", **here) == "fp32"


@pytest.mark.parametrize("flags", [None, "avx512f avx2", "avx512_bf16x"])
def test_auto_is_fp32_elsewhere(flags, machine):
    assert resolve("auto", **machine(flags=flags)) == "fp32"


def test_auto_says_once_what_it_is_and_why(machine, caplog):
    _say.cache_clear()
    here = machine(flags="amx_bf16")
    with caplog.at_level(logging.INFO, "aligntune"):
        resolve("bf16", **here)
        assert caplog.messages == []
        resolve("auto", **here)
        resolve("auto", **here)
    assert caplog.messages == ["precision: auto is bf16 here: this CPU computes in it (amx_bf16)"]
