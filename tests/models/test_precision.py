"""What `precision: auto` becomes."""

import pytest

from aligntune.models.precision import resolve

FLAGS = "processor\t: 0\nvendor_id\t: X\nflags\t\t: fpu sse4_2 {}\nbugs\t\t: avx512_bf16\n"


@pytest.fixture
def machine(tmp_path):
    """Paths of a device node and a cpuinfo, of which only what is asked for exists."""

    def build(*, gpu=False, flags=None):
        paths = {"gpu": tmp_path / "nvidia0", "cpuinfo": tmp_path / "cpuinfo"}
        if gpu:
            paths["gpu"].touch()
        if flags is not None:
            paths["cpuinfo"].write_text(FLAGS.format(flags))
        return paths

    return build


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_a_chosen_precision_is_kept(precision, machine):
    assert resolve(precision, **machine(gpu=True)) == precision


@pytest.mark.parametrize("flags", ["avx512_bf16", "amx_bf16 amx_tile"])
def test_auto_is_bf16_on_a_cpu_that_has_it(flags, machine):
    assert resolve("auto", **machine(flags=flags)) == "bf16"


def test_auto_is_bf16_on_a_gpu(machine):
    assert resolve("auto", **machine(gpu=True, flags="avx2")) == "bf16"


@pytest.mark.parametrize("flags", [None, "avx512f avx2", "avx512_bf16x"])
def test_auto_is_fp32_elsewhere(flags, machine):
    assert resolve("auto", **machine(flags=flags)) == "fp32"
