"""What a training stage keeps in memory, part by part.

The counts per token are those of a Llama layer in transformers: tensors that autograd saves, each
counted once (tests/estimate checks them against autograd itself).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from aligntune.config.algo import ONLINE
from aligntune.config.slices import TrainSlice
from aligntune.estimate.room import Kind
from aligntune.estimate.shape import Shape

Sharding = Literal["ddp", "zero2", "fsdp"]
_FULL = 4
"""Bytes of a weight, a gradient, an activation that is added up: fp32."""
_OPTIMIZER = {
    "adamw_torch": 8.0,
    "adamw_torch_fused": 8.0,
    "adamw_8bit": 2.0,
    "paged_adamw_8bit": 2.0,
    "adafactor": 0.02,
    "sgd": 0.0,
}
"""Bytes of state per trained parameter."""
_BLOCK = 5 * _FULL * 2**20
"""What `train.token_scores` makes of a block of logits."""
_QUANTIZED = {"4bit": 0.53, "8bit": 1.0}
"""Bytes per weight of a linear layer, scales included."""
_TILE_ROWS, _TILE_COLUMNS = 4096, 32768
"""TRL's fused head works through its logits in tiles of so many tokens and words."""
GROWN = 64
"""Tokens by which the cache of the own sampler grows."""
PAYS = 1.15
"""How many times less work it has to be that prompts are shared: there is some for the layout."""
_KEPT = 0.1
"""As much of activations and logits is in gaps besides where nothing goes back: -0.2 to 0.3 with
the same models; with an adapter none. dpo has up to 0.6."""
_CONTEXT = 700 * 2**20
"""What a GPU's driver and its libraries take, before any tensor."""
_RETURNED = 32 * 2**20
"""glibc gives freed pieces of this size back at once; smaller ones leave gaps in the heap."""
_SCATTERED = 0.53
"""As much of what a step with an adapter computes with is in such gaps beside it. Measured with
models of 5 to 135 million parameters, where it was 0.3 to 1: nothing as large as the gaps is made
between steps, so it is what comes next that has to fit into them."""


@dataclass(frozen=True)
class Place:
    """Where it trains."""

    kind: Kind = "cpu"
    devices: int = 1
    sharding: Sharding = "ddp"
    """What devices share: nothing; gradients and optimizer (zero2); all of the model (fsdp)."""


@dataclass(frozen=True)
class Choice:
    """What is decided by what fits, when a stage starts."""

    gradient_checkpointing: bool
    plain_head: bool = False
    """Whether the output layer's logits are there as a whole, and not in TRL's tiles."""
    padding_free: bool = False
    """Whether batches go into the model without their padding."""
    own_sampler: bool = False
    """Whether answers are sampled by `train.sampling`, and not by transformers or vLLM."""
    generation_copy: bool = False
    """Whether sampling has weights of its own in bf16."""
    shared_prompts: bool = False
    """Whether prompts are computed once for all answers to them, where that pays."""
    kept_heap: bool = False
    """Whether what a step frees stays with the process for the next one."""
    reasons: Mapping[str, str] = field(default_factory=dict, compare=False)
    """By the name of each of them."""


@dataclass(frozen=True)
class Memory:
    """In bytes, of one device. A part that is not there is 0."""

    weights: int
    optimizer: int
    gradients: int
    activations: int
    logits: int
    """Of the loss, with its gradient."""
    reference: int = 0
    generation_copy: int = 0
    """Gone when answers have been sampled."""
    kv_cache: int = 0
    rollouts: int = 0
    """Logits that answers are sampled from, and the activations of prompts."""
    overhead: int = 0
    accumulates: bool = False
    """Whether gradients are still there when the next activations come."""

    @property
    def held(self) -> int:
        """What is there from the first step to the last."""
        return self.weights + self.optimizer + self.reference + self.overhead

    @property
    def total(self) -> int:
        """The most that is there at the same time: in the backward pass, the update, or while
        answers are sampled."""
        backward = self.activations + self.logits + (self.gradients if self.accumulates else 0)
        sampling = self.generation_copy + self.kv_cache + self.rollouts
        return self.held + max(backward, self.gradients, sampling)

    @property
    def parts(self) -> Mapping[str, int]:
        """Those that are there, largest first."""
        names = (
            *("weights", "optimizer", "gradients", "activations", "logits", "reference"),
            *("generation_copy", "kv_cache", "rollouts", "overhead"),
        )
        found = {name: getattr(self, name) for name in names}
        order = sorted(found, key=lambda name: -found[name])
        return {name: found[name] for name in order if found[name]}


def training_memory(
    shape: Shape,
    spec: TrainSlice,
    choice: Choice,
    place: Place | None = None,
    longest: int | None = None,
) -> Memory:
    """What each device needs for the stage `spec` of a model of this shape.

    `longest` is how many tokens the longest row has, where that is known: else rows are taken to be
    as long as they may be.
    """
    place = place or Place()
    width = 4 if spec.precision == "fp32" else 2
    rows, length = rows_of(spec), length_of(shape, spec, longest)
    trained = trained_parameters(shape, spec)
    weights = _weights(shape, spec)
    model = place.devices if place.sharding == "fsdp" else 1
    state = 1 if place.sharding == "ddp" else place.devices
    gradients = trained * _FULL
    if place.devices > 1 and place.sharding == "ddp":
        gradients *= 2  # torch sends buckets that are copies
    gathered = _gathered(shape, width) if model > 1 else 0
    kv_cache, rollouts = _sampling(shape, spec, choice, width)
    activations = _activations(shape, spec, choice, width, rows, length, gathered=bool(gathered))
    logits = _logits(shape, spec, choice, width, (rows, length), place.kind)
    gaps = _gaps(shape, spec, rows * length, activations + logits)
    if choice.kept_heap and spec.peft is None:
        gaps += int(_KEPT * (activations + logits))
    return Memory(
        weights=weights // model + gathered,
        optimizer=int(trained * _OPTIMIZER[spec.train.optimizer]) // state,
        gradients=gradients // state,
        activations=activations,
        logits=logits,
        reference=weights // model if has_reference(spec) else 0,
        generation_copy=2 * (shape.linear + head_of(shape)) if choice.generation_copy else 0,
        kv_cache=kv_cache,
        rollouts=rollouts,
        overhead=_CONTEXT if place.kind == "gpu" else gaps,
        accumulates=spec.train.gradient_accumulation_steps > 1,
    )


def rows_of(spec: TrainSlice) -> int:
    """Sequences in one forward pass of a device."""
    pairs = spec.algo == "dpo" or (spec.algo == "reward" and spec.objective != "regression")
    return spec.train.per_device_batch_size * (2 if pairs else 1)


def length_of(shape: Shape, spec: TrainSlice, longest: int | None = None) -> int:
    """Tokens of the longest sequence in training, answers that are sampled included."""
    train = spec.train
    most = train.max_length or shape.longest or 0
    if spec.algo in ONLINE:
        answer = train.max_completion_length or 0
        prompt = train.max_prompt_length or 0
        most = answer + (min(prompt, longest) if longest else prompt)
    elif longest and not train.packing:
        most = min(most, longest)
    return min(most, shape.longest or most)


def head_of(shape: Shape) -> int:
    """Parameters of the output layer."""
    return shape.vocab * shape.hidden


def computed(spec: TrainSlice, choice: Choice, rows: int, length: int) -> int:
    """Tokens in one forward pass of training: prompts once for all their answers where that is
    decided and pays, as `train.shared_prompt` counts it where attention is little of the work."""
    whole, answer = rows * length, spec.train.max_completion_length or 0
    if not choice.shared_prompts:
        return whole
    prompts = -(-rows // (spec.train.num_generations or 1))
    shared = prompts * (length - answer) + rows * answer
    return shared if whole > PAYS * shared else whole


def has_reference(spec: TrainSlice) -> bool:
    """Whether another model is kept beside the one that is trained; with an adapter the reference
    is the model without it."""
    if spec.peft is not None:
        return False
    if spec.algo == "dpo":
        return spec.train.precompute_ref_log_probs is not True
    weight = spec.train.kl_coef if spec.algo == "ppo" else spec.train.beta
    return spec.algo in ONLINE and bool(weight or spec.train.gbmpo)


def trained_parameters(shape: Shape, spec: TrainSlice) -> int:
    if spec.peft is None:
        return shape.parameters
    return shape.adapter(spec.peft.r, spec.peft.target_modules)


def _weights(shape: Shape, spec: TrainSlice) -> int:
    each = _QUANTIZED.get(spec.quantization or "", _FULL)
    adapter = trained_parameters(shape, spec) if spec.peft else 0
    return int(shape.linear * each) + (shape.parameters - shape.linear + adapter) * _FULL


def _gaps(shape: Shape, spec: TrainSlice, tokens: int, computed_with: int) -> int:
    """What the step before leaves in the heap of a CPU's process: about as much as its gradients
    took, as measured with models of 5 to 135 million parameters; with an adapter, whose gradients
    are small, a part of the activations and logits."""
    if spec.peft is not None:
        returned = _FULL * tokens * shape.hidden >= _RETURNED
        return 0 if returned else int(_SCATTERED * computed_with)
    largest = max(inputs * outputs for _, inputs, outputs, _ in shape.matrices) * _FULL
    return shape.linear * _FULL if largest < _RETURNED else 0


def _gathered(shape: Shape, width: int) -> int:
    """Of a model that is shared out, two layers and the output layer are whole at a time."""
    return width * (2 * shape.linear // shape.layers + head_of(shape))


def _activations(
    shape: Shape,
    spec: TrainSlice,
    choice: Choice,
    width: int,
    rows: int,
    length: int,
    *,
    gathered: bool,
) -> int:
    """What the backward pass needs of the forward pass, the output layer apart. Weights that are
    gathered from other devices come rounded already."""
    tokens = computed(spec, choice, rows, length)
    layer = layer_activations(shape, width, rows, length, adapted=spec.peft is not None)
    layer = layer * tokens // max(rows * length, 1)
    copies = 0 if gathered else _rounded(shape, spec, choice, width)
    passing = tokens * (2 * _FULL * shape.hidden + 2 * width * shape.intermediate)
    ends = tokens * 4 * _FULL * shape.hidden  # the embedding and the last norm
    if not choice.gradient_checkpointing:
        return shape.layers * layer + copies + passing + ends
    kept = shape.layers * tokens * _FULL * shape.hidden
    return kept + layer + copies + passing + ends


def _rounded(shape: Shape, spec: TrainSlice, choice: Choice, width: int) -> int:
    """Autocast's copies of the weights: those that are trained are kept through the forward pass,
    those that are not only where the backward pass will not make them again."""
    if width == _FULL:
        return 0
    again = spec.peft is not None and choice.gradient_checkpointing
    return width * shape.linear // (shape.layers if again else 1)


def layer_activations(shape: Shape, width: int, rows: int, length: int, *, adapted: bool) -> int:
    """Bytes that one layer saves for its backward pass, in arithmetic of `width` bytes."""
    hidden, inner = shape.hidden, shape.intermediate * max(shape.experts_used, 1)
    # Two norms save their input, and what is multiplied with their weight if that is trained.
    norms = (2 if adapted else 4) * _FULL * hidden
    # What linear layers read: one tensor for all that read it, or a rounded copy for each.
    read = 2 * _FULL * hidden if width == _FULL else (5 if shape.gated else 4) * width * hidden
    attention = width * 4 * shape.queries + _FULL * shape.heads
    ffn = width * (4 if shape.gated else 6) * inner
    mask = rows * length * length * (width if width < _FULL else 0)
    return rows * length * (norms + read + attention + ffn) + mask


def _logits(
    shape: Shape,
    spec: TrainSlice,
    choice: Choice,
    width: int,
    sizes: tuple[int, int],
    kind: Kind,
) -> int:
    """Of a batch with these rows and lengths."""
    if spec.algo == "reward":
        return 0
    (batch, length), head = sizes, head_of(shape)
    tokens, whole = batch * length, 0 if spec.peft else _FULL * head
    if choice.plain_head:  # logits and their gradient; what is made of them is made in blocks
        rounded = (1 if spec.peft else 2) * width * head if width < _FULL else 0
        each = 2 * width
        if spec.algo in ONLINE:  # prompts have none
            tokens = batch * min(spec.train.max_completion_length or length, length)
            # Behind answers that share prompts, accelerate makes them fp32.
            each = 2 * _FULL + width if choice.shared_prompts and width < _FULL else each
        return tokens * shape.vocab * each + whole + rounded + _BLOCK
    rows, columns = min(tokens, _TILE_ROWS), min(shape.vocab, _TILE_COLUMNS)
    if kind == "gpu":
        return rows * columns * width + whole
    # Its torch version makes seven tensors of a tile, and fp32 copies of the weights.
    return rows * columns * (width + 7 * _FULL) + _FULL * columns * shape.hidden + whole


def _sampling(shape: Shape, spec: TrainSlice, choice: Choice, width: int) -> tuple[int, int]:
    """The cache of keys and values of one round of answers, and what else sampling takes."""
    train = spec.train
    if spec.algo not in ONLINE or train.vllm is not None:
        return 0, 0
    rows = train.per_device_batch_size * (train.steps_per_generation or 1)
    prompt, answer = train.max_prompt_length or 0, train.max_completion_length or 0
    # The own sampler's cache is in fp32 throughout, and grows by blocks.
    cached = _FULL if choice.own_sampler else (width + _FULL) / 2
    room = -(-(prompt + answer) // GROWN) * GROWN if choice.own_sampler else prompt + answer
    cache = int(rows * room * shape.layers * 2 * shape.keys * cached)
    logits = rows * shape.vocab * 4 * _FULL
    read = -(-rows // (train.num_generations or 1)) if choice.own_sampler else rows
    prefill = read * prompt * (4 * _FULL * shape.hidden + 3 * width * shape.intermediate)
    return cache, logits + prefill
