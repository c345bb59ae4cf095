"""What other libraries call a setting that is here under another name, or not at all: TRL,
transformers, peft, axolotl, LLaMA-Factory and AlignTune 0.1. Only said, never applied."""

from aligntune.config.naming import KeyPath

_PRECISION = "model.precision: bf16, fp16, fp32 or auto"
_ATTENTION = "model.attn_implementation: flash_attention_2"
_LORA = "peft: a section, `peft: {r: 16, alpha: 32}`; without it all weights are trained"
_LAYERS = "peft.target_modules: all-linear, or a list of names"
_ANSWERS = "train.completion_only_loss: true learns from the answers alone"
_HELD_OUT = "evaluation.heldout_fraction: a share of the prompts, as 0.05"
_REWARDS = "rewards: a list, `rewards: [{reward_type: math, weight: 1.0}]`"
_COLUMNS = "datasets.0.columns: new name -> the dataset's, as `{prompt: question}`"
_VLLM = "train.vllm: a section, `vllm: {mode: colocate}`"

FOREIGN = {
    "algorithm": "algo", "method": "algo", "rl": "algo", "stage": "algo", "trainer": "algo",

    "model_name_or_path": "model.name_or_path", "model_name": "model.name_or_path",
    "model_path": "model.name_or_path", "model_id": "model.name_or_path",
    "base_model": "model.name_or_path", "model.name": "model.name_or_path",
    "pretrained_model_name_or_path": "model.name_or_path",
    "model_revision": "model.revision", "sft_model_path": "model.sft_path",
    "reward_model_path": "model.reward_path", "reward_model_name": "model.reward_path",
    "dtype": _PRECISION, "torch_dtype": _PRECISION, "fp16": "model.precision: fp16",
    "bf16": "model.precision: bf16", "mixed_precision": _PRECISION,
    "load_in_4bit": "model.quantization: 4bit", "load_in_8bit": "model.quantization: 8bit",
    "quantization_bit": "model.quantization: 4bit or 8bit",
    "quantization_config": "model.quantization: 4bit or 8bit",
    "flash_attention": _ATTENTION, "flash_attn": _ATTENTION, "use_flash_attention_2": _ATTENTION,
    "sequence_len": "model.max_seq_length", "cutoff_len": "model.max_seq_length",
    "model_max_length": "model.max_seq_length",
    "template": "model.chat_template: a Jinja template or a file with one, by default the model's",
    "chat_template_path": "model.chat_template",
    "use_gradient_checkpointing": "model.gradient_checkpointing",
    "backend": "model.use_unsloth: true or false",

    "use_peft": _LORA, "use_lora": _LORA, "adapter": _LORA, "finetuning_type": _LORA,
    "lora": _LORA, "peft_config": _LORA, "lora_r": "peft.r", "lora_rank": "peft.r",
    "rank": "peft.r", "lora_alpha": "peft.alpha", "lora_dropout": "peft.dropout",
    "lora_target_modules": _LAYERS, "lora_target_linear": _LAYERS, "lora_target": _LAYERS,

    "dataset": "datasets: a list, `datasets: [{name: owner/name}]`",
    "dataset_name": "datasets.0.name", "dataset_path": "datasets.0.name",
    "train_file": "datasets.0.name", "data_path": "datasets.0.name",
    "datasets.path": "datasets.0.name", "datasets.data_files": "datasets.0.name",
    "dataset_config": "datasets.0.subset", "dataset_config_name": "datasets.0.subset",
    "config_name": "datasets.0.subset", "datasets.config": "datasets.0.subset",
    "dataset_train_split": "datasets.0.split", "dataset_test_split": "datasets.0.eval_split",
    "max_train_samples": "datasets.0.max_samples", "max_eval_samples": "evaluation.max_samples",
    "datasets.type": "datasets.0.format", "datasets.formatting": "datasets.0.format",
    "dataset_text_field": "datasets.0.columns: `{text: <column>}`",
    "column_mapping": _COLUMNS, "field_mappings": _COLUMNS, "column_map": _COLUMNS,
    "field_messages": _COLUMNS,
    "interleave_probs": "datasets.0.weight: one for each dataset",
    "val_set_size": _HELD_OUT, "val_size": _HELD_OUT, "val_split_ratio": _HELD_OUT,
    "eval_dataset": "evaluation.datasets", "test_datasets": "evaluation.datasets",
    "dataset_num_proc": "launch.data_workers", "preprocessing_num_workers": "launch.data_workers",
    "sample_packing": "train.packing", "data_seed": "seed",
    "train_on_inputs": _ANSWERS, "train_on_prompt": _ANSWERS, "assistant_only_loss": _ANSWERS,

    "num_train_epochs": "train.num_epochs", "epochs": "train.num_epochs",
    "per_device_train_batch_size": "train.per_device_batch_size",
    "micro_batch_size": "train.per_device_batch_size",
    "train_batch_size": "train.per_device_batch_size",
    "batch_size": "train.per_device_batch_size",
    "per_device_eval_batch_size": "evaluation.batch_size",
    "eval_batch_size": "evaluation.batch_size",
    "lr": "train.learning_rate", "lr_scheduler": "train.lr_scheduler_type",
    "scheduler": "train.lr_scheduler_type",
    "warmup_ratio": "train.warmup_steps: a number of optimizer steps, not a share of them",
    "optim": "train.optimizer", "gradient_clipping": "train.max_grad_norm",

    "pref_beta": "train.beta", "rl_beta": "train.beta", "dpo_beta": "train.beta",
    "pref_loss": "train.loss_type", "init_kl_coef": "train.kl_coef",
    "target_kl": "train.kl_target", "ppo_epochs": "train.num_ppo_epochs",
    "response_length": "train.max_completion_length",
    "train.max_new_tokens": "train.max_completion_length",
    "num_return_sequences": "train.num_generations", "group_size": "train.num_generations",
    "generation_batch_size": (
        "train.steps_per_generation: in forward passes of `per_device_batch_size` rows"
    ),
    "reward_funcs": _REWARDS, "reward_functions": _REWARDS, "reward_weights": "rewards.0.weight",
    "rewards.type": "rewards.0.reward_type", "rewards.name": "rewards.0.reward_type",
    "rewards.model": "rewards.0.model_name", "reward_training": "reward_model",
    "use_vllm": _VLLM, "vllm_mode": "train.vllm.mode",
    "vllm_server_base_url": "train.vllm.server_base_url",
    "vllm_gpu_memory_utilization": "train.vllm.gpu_memory_utilization",
    "vllm_tensor_parallel_size": "train.vllm.tensor_parallel_size",
    "gbmpo_divergence_type": "train.gbmpo.divergence",
    "gbmpo_l2_coefficient": "train.gbmpo.coefficient",
    "boost_factor": "train.counterfactual.boost", "weighting_mode": "train.counterfactual.mode",

    "eval_interval": "logging.eval_steps", "save_interval": "logging.save_steps",
    "eval_strategy": "logging.eval_steps: a number, or null for none",
    "save_strategy": "logging.save_steps: a number of optimizer steps",
    "load_best_model_at_end": "logging.load_best", "log_level": "logging.level",
    "hub_private_repo": "logging.hub_private", "experiment_name": "logging.run_name",
    "use_wandb": "logging.loggers: [wandb]", "use_tensorboard": "logging.loggers: [tensorboard]",
    "num_gpus": "launch.processes", "nproc_per_node": "launch.processes",
}  # fmt: skip
"""Name, alone or with the section it is in -> path here, and after `: ` how to write it there."""

_SHARING = "several GPUs train by DDP, set by `launch.processes`; weights are not sharded"
_ADAM = "optimizers have the values of transformers (betas 0.9 and 0.999, epsilon 1e-8)"
_ADAPTER = "the adapter is plain LoRA, with r, alpha, dropout and target_modules"
_AGAIN = "the same command again reuses what is finished and resumes what is not"
_TOKENS = "the tokenizer is the model's own, with its special tokens"
_REFERENCE = "the reference is the model that the stage starts from, and stays as it is"
_PATIENCE = "training goes to its end, and `logging.load_best` keeps the best checkpoint"

ABSENT = {
    **dict.fromkeys(("deepspeed", "deepspeed_config", "fsdp", "fsdp_config", "distributed"),
        _SHARING),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_epsilon", "betas", "optim_args"), _ADAM),
    **dict.fromkeys(("peft.task_type", "peft.bias", "modules_to_save", "use_dora", "use_rslora",
        "lora_bias", "init_lora_weights"), _ADAPTER),
    **dict.fromkeys(("resume_from_checkpoint", "overwrite_output_dir", "overwrite_cache"), _AGAIN),
    "do_train": "`aligntune train` trains", "do_eval": "every model is evaluated",
    **dict.fromkeys(("special_tokens", "eos_token", "pad_token", "tokenizer",
        "tokenizer_name_or_path"), _TOKENS),
    **dict.fromkeys(("ref_model", "sync_ref_model", "ref_model_mixup_alpha"), _REFERENCE),
    **dict.fromkeys(("early_stopping", "early_stopping_patience"), _PATIENCE),
    "metric_for_best_model": "`logging.load_best` goes by the held-out loss",
    "logging_steps": "every optimizer step is logged",
    "logging_dir": "logs go below `logging.output_dir`",
    "save_total_limit": "its newest checkpoints and the best are kept until a stage is done",
    "device_map": "a process trains on its own GPU, or on the CPU; see `launch.processes`",
    "group_by_length": "`train.padding_free` takes the padding out of a batch",
    "use_liger_kernel": "`train.lm_head: chunked` saves the memory of the logits",
    "neftune_noise_alpha": "nothing adds noise to embeddings",
    "wandb_project": "wandb reads it from the environment, as WANDB_PROJECT",
    "mlflow_tracking_uri": "MLflow reads it from the environment, as MLFLOW_TRACKING_URI",
    "caching": "what a stage made is always reused",
}  # fmt: skip
"""Name, alone or with its section -> why there is no such setting, or what is in its place."""

_PAIRS = "dpo learns from pairs, too"
ALGORITHMS = {
    "kto": "dpo learns from pairs instead", "orpo": _PAIRS, "simpo": _PAIRS, "cpo": _PAIRS,
    "online_dpo": _PAIRS, "spin": _PAIRS, "ipo": "it is dpo with `train.loss_type: ipo`",
    "rloo": "dr-grpo has its advantages but for a factor",
    "reinforce": "dr-grpo compares with the mean of a group alone",
    "reward": "a reward model is trained by the section `reward_model`, before `algo`",
    "rm": "a reward model is trained by the section `reward_model`, before `algo`",
    "pt": "sft learns rows with a `text` as a whole",
    "nmgrpo": "it is gbmpo with `train.gbmpo.divergence: neural`",
    "metaes": "`aligntune mirror` learns the mirror map of gbmpo",
}  # fmt: skip
"""Algorithms of others -> what there is in their place."""


def foreign(section: KeyPath, name: str) -> tuple[str | None, str]:
    """(path here, how to write it), or (None, why there is none); both empty if it is unknown."""
    around = next((step for step in reversed(section) if isinstance(step, str)), "")
    for known in (f"{around}.{name}", name):
        if known in FOREIGN:
            path, _, how = FOREIGN[known].partition(": ")
            return path, how
        if known in ABSENT:
            return None, ABSENT[known]
    return None, ""
