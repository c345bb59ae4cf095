"""The parts of an estimate: against what autograd saves, and against each other."""

import json
from dataclasses import replace

import pytest
from slices import train_slice

from aligntune.config.presets import resolved
from aligntune.config.train import Peft, Train
from aligntune.estimate.memory import Choice, Place, layer_activations, training_memory
from aligntune.estimate.shape import Shape, shape_of

SHAPE = Shape(
    hidden=512, layers=8, heads=8, kv_heads=4, head_dim=64, intermediate=1536, vocab=32_000
)
ON, OFF = Choice(True), Choice(False)


def spec(algo="sft", peft=None, precision="fp32", processes=1, **train):
    settings = {"per_device_batch_size": 4, "max_length": 256, "max_steps": 1} | train
    made = resolved(Train(**settings), algo, peft, 256)
    return train_slice(algo, made, peft=peft, precision=precision, processes=processes)


def saved(config, rows, length, *, bf16, adapted):
    """Bytes that autograd keeps of the layers of a model, weights apart."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(config)
    if adapted:
        for name, parameter in model.named_parameters():
            parameter.requires_grad = "norm" not in name
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept, held = {}, []

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held.append(tensor)  # else its address may be given away again
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.zeros(rows, length, dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[0, -3:] = 0
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        model.model(input_ids=ids, attention_mask=mask, use_cache=False)
    return sum(kept.values())


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("adapted", [False, True], ids=["full", "norms frozen"])
@pytest.mark.parametrize("sizes", [(64, 192, 4, 2), (96, 128, 3, 3)], ids=str)
def test_a_layer_keeps_what_autograd_saves(sizes, adapted, bf16):
    from transformers import LlamaConfig

    hidden, inner, heads, groups = sizes

    def config(layers):
        return LlamaConfig(
            hidden_size=hidden, intermediate_size=inner, num_attention_heads=heads,
            num_key_value_heads=groups, num_hidden_layers=layers, vocab_size=50,
        )  # fmt: skip

    rows, length, width = 2, 80, 2 if bf16 else 4
    one, three = (
        saved(config(layers), rows, length, bf16=bf16, adapted=adapted) for layers in (1, 3)
    )
    shape = shape_of(json.loads(config(1).to_json_string()))
    expected = layer_activations(shape, width, rows, length, adapted=adapted)
    copies = width * shape.linear if bf16 else 0
    assert expected + copies == pytest.approx((three - one) / 2, rel=0.08)


def test_full_training_keeps_sixteen_bytes_of_each_parameter():
    memory = training_memory(SHAPE, spec(), ON)
    state = memory.weights + memory.gradients + memory.optimizer
    assert state == 16 * SHAPE.parameters


def test_checkpointing_keeps_less_and_nothing_else_changes():
    off, on = (training_memory(SHAPE, spec(), choice) for choice in (OFF, ON))
    assert on.activations < off.activations / 3
    assert on.parts | {"activations": 0} == off.parts | {"activations": 0}


def test_an_adapter_has_the_only_gradients_and_needs_no_reference():
    lora = training_memory(SHAPE, spec("dpo", Peft(r=8)), ON)
    full = training_memory(SHAPE, spec("dpo"), ON)
    assert lora.gradients == 4 * SHAPE.adapter(8, "all-linear")
    assert (lora.reference, full.reference) == (0, full.weights)


def test_a_reference_whose_log_probabilities_are_there_is_not_kept():
    computed = spec("dpo", precompute_ref_log_probs=True)
    assert training_memory(SHAPE, computed, ON).reference == 0


@pytest.mark.parametrize(
    ("algo", "train", "there"),
    [
        ("sft", {}, False),
        ("grpo", {"beta": 0.04}, True),
        ("grpo", {"beta": 0.0}, False),
        ("ppo", {"kl_coef": 0.1}, True),
        ("ppo", {"kl_coef": 0.0}, False),
        ("gbmpo", {}, True),
    ],
)
def test_the_reference_is_there_where_something_is_compared_with_it(algo, train, there):
    assert bool(training_memory(SHAPE, spec(algo, **train), ON).reference) == there


def test_devices_share_what_their_kind_of_sharing_shares():
    def on(sharding):
        return training_memory(SHAPE, spec(processes=8), ON, Place("gpu", 8, sharding))

    ddp, zero2, fsdp = on("ddp"), on("zero2"), on("fsdp")
    assert zero2.optimizer == ddp.optimizer // 8
    assert zero2.weights == ddp.weights
    two_layers_and_head = SHAPE.linear // 4 + SHAPE.vocab * SHAPE.hidden
    assert fsdp.weights == ddp.weights // 8 + 4 * two_layers_and_head
    assert fsdp.total < zero2.total < ddp.total


def test_the_cache_has_keys_and_values_of_every_token_of_a_round():
    online = spec("grpo", max_completion_length=56, max_prompt_length=200, steps_per_generation=2)
    memory = training_memory(SHAPE, online, ON)
    tokens = 4 * 2 * (200 + 56)
    assert memory.kv_cache == tokens * SHAPE.layers * 2 * SHAPE.keys * 4


def test_the_own_sampler_has_its_cache_in_fp32_whatever_the_weights_are_sampled_from():
    online = spec("grpo", precision="bf16", max_completion_length=50, max_prompt_length=200)
    own = Choice(True, own_sampler=True)
    caches = [
        training_memory(SHAPE, online, choice).kv_cache
        for choice in (own, replace(own, generation_copy=True))
    ]
    room = 256  # by blocks of 64
    assert caches == [4 * room * SHAPE.layers * 2 * SHAPE.keys * 4] * 2
    assert training_memory(SHAPE, online, ON).kv_cache == caches[0] * 250 // 256 * 3 // 4


def test_a_copy_to_sample_from_is_of_the_products_and_gone_in_the_update():
    online = spec("grpo", precision="bf16")
    without, beside = (
        training_memory(SHAPE, online, Choice(True, own_sampler=True, generation_copy=copy))
        for copy in (False, True)
    )
    assert beside.generation_copy == 2 * (SHAPE.linear + SHAPE.vocab * SHAPE.hidden)
    assert beside.held == without.held
    assert beside.total == without.total
    most = replace(beside, activations=0, logits=0, gradients=0)
    assert most.total == beside.held + beside.generation_copy + beside.kv_cache + beside.rollouts


def test_prompts_that_are_shared_are_there_once_where_that_pays():
    def activations(prompt, **train):
        lengths = {"max_prompt_length": prompt, "max_completion_length": 64}
        online = spec("grpo", num_generations=4, **lengths | train)
        return [
            training_memory(SHAPE, online, Choice(False, shared_prompts=shared)).activations
            for shared in (False, True)
        ]

    apart, together = activations(192)
    assert together == pytest.approx(apart * (192 + 4 * 64) / (4 * 256), rel=0.01)
    apart, together = activations(8)
    assert together == apart


def test_prompts_have_no_logits():
    online = spec("grpo", max_prompt_length=192, max_completion_length=64)
    plain = training_memory(SHAPE, online, Choice(True, plain_head=True))
    whole = training_memory(SHAPE, spec(), Choice(True, plain_head=True))
    assert whole.logits - plain.logits == 2 * 4 * 192 * SHAPE.vocab * 4


def test_rows_that_are_known_to_be_short_need_less_but_packed_ones_do_not():
    short = training_memory(SHAPE, spec(), OFF, longest=64)
    assert short.activations < training_memory(SHAPE, spec(), OFF).activations / 3
    packed = spec(packing=True)
    assert training_memory(SHAPE, packed, OFF, longest=64) == training_memory(SHAPE, packed, OFF)


def test_the_total_is_the_most_at_a_time_and_not_the_sum():
    memory = training_memory(SHAPE, spec(), ON)
    assert memory.total < sum(memory.parts.values())
    again = training_memory(SHAPE, spec(gradient_accumulation_steps=2), ON)
    assert again.total == memory.held + memory.activations + memory.logits + memory.gradients


def test_quantized_weights_are_counted_in_their_own_bits():
    plain = spec(peft=Peft(r=8), precision="bf16")
    four = plain.model_copy(update={"quantization": "4bit"})
    gone = training_memory(SHAPE, plain, ON).weights - training_memory(SHAPE, four, ON).weights
    assert gone == pytest.approx(3.47 * SHAPE.linear, rel=0.01)


def test_a_step_with_an_adapter_leaves_gaps_on_a_cpu_where_pieces_are_small():
    lora = spec(peft=Peft(r=8))
    small = training_memory(SHAPE, lora, OFF)
    assert 0.3 < small.overhead / (small.activations + small.logits) < 1
    assert small.overhead > training_memory(SHAPE, lora, ON).overhead
    long = spec(peft=Peft(r=8), per_device_batch_size=4096)  # pieces that go back at once
    assert training_memory(SHAPE, long, OFF).overhead == 0
    gpu = training_memory(SHAPE, lora, OFF, Place("gpu"))
    assert gpu.overhead == training_memory(SHAPE, spec(), OFF, Place("gpu")).overhead
