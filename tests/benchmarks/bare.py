"""SFT as one writes it with TRL alone: rows and a model in, a saved model out.

    PYTHONPATH=tests python -m benchmarks.bare MODEL ROWS OUTPUT STEPS

The peer of `overhead`, with the settings that its config has there, and else TRL's own.
"""

import sys

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def main(model: str, rows: str, output: str, steps: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype="float32"),
        args=SFTConfig(
            output_dir=output,
            max_steps=steps,
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            max_length=96,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            save_steps=steps,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=load_dataset("json", data_files=rows, split="train"),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(f"{output}/final")


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
