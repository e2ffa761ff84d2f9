"""Makes a model with random weights, as a GGUF file.

Usage: install.py FILE
"""

import sys

import gguf
import numpy

HIDDEN = 256
HEADS = 4
LAYERS = 8
FEED = 1024
CONTEXT = 2048
WORDS = 512
FIRST_WORD = 3 + 256


def words():
    """The vocabulary: three special tokens, one token for each byte, and words, so that each token is visible."""
    special = [("<unk>", gguf.TokenType.UNKNOWN), ("<s>", gguf.TokenType.CONTROL), ("</s>", gguf.TokenType.CONTROL)]
    octets = [(f"<0x{at:02X}>", gguf.TokenType.BYTE) for at in range(256)]
    plain = [(f"\u2581w{at}", gguf.TokenType.NORMAL) for at in range(FIRST_WORD, WORDS)]
    return special + octets + plain


def main():
    random = numpy.random.default_rng(0)
    writer = gguf.GGUFWriter(sys.argv[1], "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FEED)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(WORDS)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([word.encode() for word, _ in words()])
    writer.add_token_types([kind for _, kind in words()])
    writer.add_token_scores([-float(at) for at in range(WORDS)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)

    def weights(name, *shape):
        writer.add_tensor(name, random.standard_normal(shape, dtype=numpy.float32) / 10)

    def ones(name):
        writer.add_tensor(name, numpy.ones(HIDDEN, dtype=numpy.float32))

    weights("token_embd.weight", WORDS, HIDDEN)
    weights("output.weight", WORDS, HIDDEN)
    ones("output_norm.weight")
    for layer in range(LAYERS):
        for part in ["attn_q", "attn_k", "attn_v", "attn_output"]:
            weights(f"blk.{layer}.{part}.weight", HIDDEN, HIDDEN)
        weights(f"blk.{layer}.ffn_gate.weight", FEED, HIDDEN)
        weights(f"blk.{layer}.ffn_up.weight", FEED, HIDDEN)
        weights(f"blk.{layer}.ffn_down.weight", HIDDEN, FEED)
        ones(f"blk.{layer}.attn_norm.weight")
        ones(f"blk.{layer}.ffn_norm.weight")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main()
