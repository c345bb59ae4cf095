"""Hyper-parameters, one tree for all algorithms; a name that a TRL trainer has keeps that name.

A setting without a default here has one per algorithm, in `presets`. Settings that an algorithm
does not have are left out of what its stage sees.
"""

from typing import Annotated, Literal

from pydantic import Field

from aligntune.config.base import NeutralField, Strict
from aligntune.config.data import Dataset

Scheduler = Literal[
    "linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"
]
Optimizer = Literal[
    "adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"
]
LossType = Literal[
    "nll", "dft",
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot",
    "aot_unpaired", "apo_zero", "apo_down", "discopop", "sigmoid_norm",
    "grpo", "dr_grpo", "dapo", "bnpo",
]  # fmt: skip


class Gbmpo(Strict):
    """gbmpo (arXiv:2602.04380): what holds the policy at the reference in place of KL."""

    divergence: Literal["prob_l2", "l2", "kl", "prob_l2kl", "l2kl", "neural"] = "prob_l2"
    """Squared differences of probabilities or of their logarithms, KL, the first two with KL
    beside them (its weight is `beta`, 0.1 if that is not given), or a random convex function."""
    coefficient: float = Field(1e-4, ge=0)
    """Its weight in the loss; 0 is Dr. GRPO."""
    estimator: Literal["sampled", "sampled_is", "score"] = "sampled"
    """From the sampled token: as the authors do it, unbiased in value, or unbiased in gradient."""
    full_vocabulary: bool = False
    """Compute it exactly, from every token of the vocabulary: another forward pass of policy and
    reference. `estimator` is not used then."""
    mirror_seed: int = Field(42, ge=0, lt=2**63)
    """neural: draws the 380 parameters of that function."""
    mirror_path: NeutralField[str | None] = Field(None, min_length=1)
    """neural: a file with learned parameters instead, as `aligntune mirror` writes it."""


class Counterfactual(Strict):
    """counterfactual-grpo (arXiv:2602.09331): how a token's weight follows from what masking its
    span does to the answer."""

    mode: Literal["counterfactual", "inverted", "random", "vanilla"] = "counterfactual"
    """Weigh by importance, by its opposite, at random, or not at all."""
    boost: float = Field(2.0, gt=0)
    """Weight of the most important tokens, before the mean is brought back to 1."""
    min_weight: float = Field(0.5, ge=0)
    """Weight of the least important ones."""
    answer_weight: float = Field(1.5, gt=0)
    """Weight of the answer's own tokens."""
    answer_markers: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        ("final answer", "####", "\\boxed{"), min_length=1
    )
    """What an answer begins with, small letters or capitals; the first that occurs counts. Without
    one in it all tokens of a completion weigh the same."""
    max_spans: int = Field(10, ge=1)
    """At most this many spans are masked per answer, one forward pass each."""
    span_credit: Literal["full", "per_token"] = "full"
    """Whether each token of a span gets the span's whole importance or its share."""


class Bolt(Strict):
    """bolt (SPO, arXiv:2509.13232): a success rate per prompt that is kept across steps."""

    rho_min: float = Field(0.875, gt=0, lt=1)
    """Least that is kept of a prompt's history at a visit."""
    rho_max: float = Field(0.96, gt=0, lt=1)
    """Most that is kept of it."""
    half_life: float = Field(0.06, gt=0)
    """Policy drift, mean absolute log-ratio per token, at which half would be forgotten."""
    prior: float = Field(0.5, gt=0)
    """Successes and failures that a prompt starts with."""
    tracker: bool = True
    """false compares with the visit's own answers alone, by the mean of each group: the base that
    bolt is held against."""
    warm_start: str | None = Field(None, min_length=1)
    """Beliefs to start with: the `bolt.json` of another run's checkpoint, or a jsonl file with a
    `prompt`, as text or as messages, and the `rewards` that some answers to it got."""
    curriculum: bool = False
    """Prefer prompts that are neither solved nor hopeless."""
    curriculum_floor: float = Field(0.05, gt=0, le=1)
    """Least sampling weight of a prompt; one that is solved half the time has 0.5 more."""
    curriculum_interval: int = Field(10, ge=1)
    """Optimizer steps between new sampling weights."""


class Vllm(Strict):
    """Sampling by vLLM instead of the policy itself, as TRL does it with these settings."""

    mode: Literal["colocate", "server"] = "colocate"
    """Beside the policy on its GPU, or a `trl vllm-serve` on others."""
    server_base_url: str | None = None
    """Where that server is. Default: http://0.0.0.0:8000."""
    gpu_memory_utilization: float = Field(0.3, gt=0, le=1)
    """colocate: the share of the GPU's memory that vLLM takes."""
    tensor_parallel_size: int = Field(1, ge=1)
    """colocate: GPUs over which the sampling model is split."""


class Guard(Strict):
    """Online runs that collapse: what counts as a sign of it, and what is done then."""

    action: Literal["warn", "stop", "off"] = "warn"
    """Say so, or stop and keep the earlier checkpoints. A run in which nothing could be learned
    from the first step on is stopped by both."""
    patience: int = Field(20, ge=1)
    """Optimizer steps in a row that have the sign."""
    max_kl: float = Field(5.0, gt=0)
    """Nats per token that the policy may be away from the reference."""
    min_entropy: float = Field(1e-4, ge=0)
    """Nats per token that the policy's entropy has to have."""
    min_length: float = Field(2.0, ge=0)
    """Tokens that answers have to have on average, with the one that ends them."""


class Train(Strict):
    per_device_batch_size: int = Field(4, ge=1)
    """Rows per device and forward pass: examples, pairs (dpo), or answers (online)."""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """Forward passes per optimizer step."""
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps; overrides `num_epochs`."""
    num_epochs: float = Field(1.0, gt=0)
    """Passes over the data where `max_steps` is not set."""
    learning_rate: float | None = Field(None, gt=0, lt=1)
    """Peak learning rate. Default: 2e-5 for sft, 1e-5 for a reward model, 3e-6 for ppo and 1e-6 for
    the others, ten times that with `peft`."""
    lr_scheduler_type: Scheduler = "linear"
    """Shape of the learning rate after warm-up."""
    warmup_steps: int = Field(0, ge=0)
    """Optimizer steps over which the learning rate rises from 0."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's decoupled weight decay."""
    optimizer: Optimizer = "adamw_torch_fused"
    """The optimizer, as transformers' `optim` names it; 8-bit ones need bitsandbytes."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    max_length: int | None = Field(None, ge=8)
    """Longest sequence in tokens, prompt and answer together. Default: `model.max_seq_length`."""
    loss_type: LossType | None = None
    """The loss, as TRL names it. sft: nll (default) or dft; dpo: sigmoid (default), ipo, ...;
    GRPO family: how token losses are averaged, grpo, dr_grpo, dapo or bnpo."""

    packing: bool | None = None
    """sft: join short rows into full sequences. Changes how many rows an optimizer step sees.
    Default: false."""
    completion_only_loss: bool | None = None
    """sft: learn the assistant's words only, and not also the prompt's. Default: true."""
    lm_head: Literal["auto", "plain", "chunked"] | None = None
    """Not reward models: keep the logits of what is learned (plain), or compute them twice and in
    parts as TRL does, which takes less memory (chunked). Default: auto, plain on a CPU where they
    fit."""
    padding_free: Literal["auto"] | bool | None = None
    """Not reward models: take the padding out of a batch before the model sees it; every row still
    attends to itself alone. Default: auto, on a CPU where the model's attention is sdpa. dpo does
    neither beside a reference that is a model of its own."""

    beta: float | None = Field(None, ge=0)
    """dpo: how strongly the policy is held to the reference, larger stays closer (default 0.1).
    GRPO family: weight of the KL divergence from the reference in the loss (default 0.04 for
    grpo, 0.005 for counterfactual-grpo, 0.1 for gbmpo's `l2kl` and `prob_l2kl`, else 0). PPO's
    is `kl_coef`."""
    label_smoothing: float | None = Field(None, ge=0, lt=0.5)
    """dpo: the assumed share of flipped labels, for the losses sigmoid (cDPO), exo_pair, robust,
    aot and aot_unpaired. Default: 0."""

    precompute_ref_log_probs: NeutralField[Literal["auto"] | bool | None] = None
    """dpo: compute the reference's log-probabilities of all rows once, in a stage of its own that
    runs with another beta, loss, learning rate or number of epochs share, and keep no reference
    beside the policy. Default: auto, where training is known to see every row at least once: by
    `num_epochs`, or by `max_steps` and every dataset's `max_samples`."""

    center_rewards_coefficient: float | None = Field(None, ge=0)
    """reward model: weight of the squared sum of a pair's scores in the loss, which keeps scores
    near 0 (arXiv:2312.09244 uses 0.01). Default: 0."""
    margin_scale: float | None = Field(None, ge=0)
    """reward model: the margin by which the chosen answer has to win is so many times the row's
    `margin`, or the difference of its `score_chosen` and `score_rejected` as a share of the largest
    in the data (arXiv:2307.09288). Default: 1; rows without either have none."""

    num_generations: int | None = Field(None, ge=1)
    """online: answers per prompt. Default: 1 for ppo; else 8, or fewer where one round of sampling
    (`per_device_batch_size` times `steps_per_generation`) is smaller or not divisible."""
    max_prompt_length: int | None = Field(None, ge=1)
    """online: longer prompts, in tokens, are left out. Default: `max_length` less
    `max_completion_length`."""
    max_completion_length: int | None = Field(None, ge=1)
    """online: longest answer in tokens. Default: 256, or half of `max_length` if that is less."""
    temperature: float | None = Field(None, gt=0)
    """online: of the sampling in training. Default: 0.7 for ppo, 1.0 for the others."""
    top_p: float | None = Field(None, gt=0, le=1)
    """online: sample from the smallest set of tokens with this much probability. Default: 1;
    less makes the importance ratios inexact."""
    top_k: int | None = Field(None, ge=0)
    """online: sample from this many tokens. Default: 0, from all."""
    ent_coef: float | None = Field(None, ge=0)
    """online: weight of the entropy bonus. Default: 0."""
    mask_truncated_completions: bool | None = None
    """online: do not learn from answers that were cut off. Default: false."""
    steps_per_generation: int | None = Field(None, ge=1)
    """online: forward passes that share one round of sampling. Default:
    `gradient_accumulation_steps`; for gspo four times that."""

    sampler: Literal["auto", "transformers"] | None = None
    """online: what draws answers without vLLM. `auto`, the default, reads each prompt once for all
    its answers on a CPU; `transformers` is the model's own `generate`, as on a GPU and in TRL."""
    generation_copy: Literal["auto"] | bool | None = None
    """online: sample from a bf16 copy of the weights, which is there while answers are sampled; the
    fp32 weights are what is trained. `auto`, the default, is true for `precision: bf16` on a CPU
    that computes in bf16 and has room for it."""
    shared_prompts: Literal["auto"] | bool | None = None
    """online: compute a prompt once for all answers to it when they are scored and learned from,
    where that is less work. The same but for rounding. `auto`, the default, is true on a CPU where
    the model's attention is sdpa and no window of it is shorter than a row."""
    vllm: Vllm | None = None
    """online: sample with vLLM, which needs a GPU. Default: sample with the policy itself."""
    guard: NeutralField[Guard | None] = None
    """online: what is done about a run that collapses."""
    overlong_buffer: int | None = Field(None, ge=0)
    """GRPO family: answers are punished from so many tokens before `max_completion_length` on, up
    to 1 at the limit (arXiv:2503.14476). Default: a fifth of the limit for dapo, else 0, never."""
    max_resampling: int | None = Field(None, ge=0)
    """GRPO family but bolt: groups whose answers are all rewarded alike are replaced by those of
    other prompts, in at most so many further rounds of sampling. Default: 3 for dapo, else 0."""

    num_iterations: int | None = Field(None, ge=1)
    """GRPO family: passes over one round of answers. Default: 1."""
    epsilon: float | None = Field(None, gt=0, lt=1)
    """GRPO family: ratios below 1 - epsilon are clipped. Default: 0.2; 3e-4 for gspo."""
    epsilon_high: float | None = Field(None, gt=0)
    """GRPO family: ratios above 1 + epsilon_high are clipped. Default: 0.28 for dapo and bolt,
    4e-4 for gspo, else `epsilon`."""
    scale_rewards: Literal["group", "batch", "none"] | None = None
    """GRPO family: the standard deviation that advantages are divided by. Default: none for
    dr-grpo and gbmpo, batch for bolt, else group."""
    importance_sampling_level: Literal["token", "sequence"] | None = None
    """GRPO family: the unit of importance ratios. Default: sequence for gspo, else token."""

    num_ppo_epochs: int | None = Field(None, ge=1)
    """ppo: passes over one round of answers. Default: 4."""
    kl_coef: float | None = Field(None, ge=0)
    """ppo: weight of the KL penalty in the reward of each token. Default: 0.1. The GRPO
    family's is `beta`."""
    kl_estimator: Literal["k1", "k2", "k3"] | None = None
    """ppo: how that KL is estimated from one sample. Default: k1, which is unbiased."""
    kl_target: float | None = Field(None, gt=0)
    """ppo: `kl_coef` is raised and lowered to keep answers so many nats away from the reference
    (arXiv:1909.08593). Default: it stays as it is."""
    kl_horizon: int | None = Field(None, ge=1)
    """ppo: answers over which `kl_coef` adapts. Default: 10000."""
    cliprange: float | None = Field(None, gt=0, lt=1)
    """ppo: ratios outside 1 +- cliprange are clipped. Default: 0.2. The GRPO family's is
    `epsilon`."""
    cliprange_value: float | None = Field(None, gt=0)
    """ppo: the most that a value may move from the one at sampling. Default: 0.2."""
    vf_coef: float | None = Field(None, ge=0)
    """ppo: weight of the value loss. Default: 0.1."""
    gamma: float | None = Field(None, gt=0, le=1)
    """ppo: discount per token. Default: 1."""
    lam: float | None = Field(None, ge=0, le=1)
    """ppo: GAE's trade of bias against variance. Default: 0.95."""
    whiten_rewards: bool | None = None
    """ppo: bring rewards to unit variance first. Default: false."""
    missing_eos_penalty: float | None = Field(None, ge=0)
    """ppo: subtracted from the score of an answer that was cut off. Default: 0."""

    gbmpo: Gbmpo | None = None
    """gbmpo: the divergence from the reference."""
    counterfactual: Counterfactual | None = None
    """counterfactual-grpo: token weights."""
    bolt: Bolt | None = None
    """bolt: the baseline per prompt."""


class Peft(Strict):
    """LoRA (arXiv:2106.09685). Without this section all weights are trained."""

    r: int = Field(16, ge=1)
    """Rank of the update."""
    alpha: int = Field(32, ge=1)
    """The update is scaled by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input, in sft and reward models; the others train without it."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the layers that get an adapter. `all-linear` is every one but the head, on any
    architecture."""
    merge: NeutralField[bool] = True
    """Push the model with the adapter merged in. false pushes the adapter and its tokenizer, for a
    hub model that it was trained on directly. A run always keeps both on disk."""


class SftSection(Strict):
    """Supervised fine-tuning before the run's own algorithm."""

    datasets: tuple[Dataset, ...] = Field(min_length=1)
    """Its data."""
    train: Train = Field(default_factory=Train)
    """Its hyper-parameters; nothing is inherited from the run's `train`."""
    peft: Peft | None = None
    """Its adapter; default: the run's `peft`."""
