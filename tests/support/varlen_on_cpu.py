# ruff: noqa: ARG002 - the operator's own signatures
"""A CPU kernel for PyTorch's variable-length attention, so that the Python path of GPUs runs in fp64 without one.

The contract, written out a sequence at a time: queries are the last of their keys, a window counts the keys to the left,
a key's head serves a group of query heads. The backward is written out too, since an operator records no gradients.
"""

import torch

OPERATORS = "torch_attn"


class VarlenOnCPU:
    """While entered, `torch.nn.attention.varlen.varlen_attn` computes on CPUs; `calls` counts forward passes.

    Args:
        shift: added to every output, for tests of what finds a wrong kernel.
    """

    def __init__(self, shift=0.0):
        self.shift, self.calls = shift, 0

    def __enter__(self):
        import torch.nn.attention.varlen  # noqa: F401 - defines the operators

        self.library = torch.library.Library(OPERATORS, "IMPL")
        self.library.impl("_varlen_attn", self.forward, "CPU")
        self.library.impl("_varlen_attn_backward", self.backward, "CPU")
        return self

    def __exit__(self, *_):
        self.library._destroy()

    def forward(
        self, query, key, value, query_ends, key_ends, most_q, most_k, is_causal=False, scale=None, window_size=None,
        enable_gqa=False, seqused_k=None, block_table=None, num_splits=None,
    ):  # fmt: skip
        assert enable_gqa
        assert is_causal == (list(window_size) == [-1, 0])
        self.calls += 1
        output = torch.empty_like(query)
        for rows, _, q, k, v, weights in _sequences(query, key, value, query_ends, key_ends, scale, window_size):
            assert q.shape[1] <= most_q
            assert k.shape[1] <= most_k
            output[rows] = torch.einsum("hqk,hkd->qhd", weights, v)
        lse = torch.zeros(query.shape[1], len(query))
        return output + self.shift, lse, torch.zeros(2, dtype=torch.uint64)

    def backward(
        self, gradient, query, key, value, output, lse, query_ends, key_ends, most_q, most_k, is_causal, rng_state,
        scale=None, window_size=None,
    ):  # fmt: skip
        grads = [torch.zeros_like(part) for part in (query, key, value)]
        size = query.shape[-1] ** -0.5 if scale is None else scale
        group = query.shape[1] // key.shape[1]
        for rows, places, q, k, v, weights in _sequences(query, key, value, query_ends, key_ends, scale, window_size):
            out = gradient[rows].transpose(0, 1)
            grad_weights = out @ v.transpose(1, 2)
            scores = weights * (grad_weights - (weights * grad_weights).sum(-1, keepdim=True)) * size
            grads[0][rows] = (scores @ k).transpose(0, 1)
            for into, found in ((grads[1], scores.transpose(1, 2) @ q), (grads[2], weights.transpose(1, 2) @ out)):
                into[places] = found.unflatten(0, (-1, group)).sum(1).transpose(0, 1)
        return tuple(grads)


def _sequences(query, key, value, query_ends, key_ends, scale, window_size):
    group = query.shape[1] // key.shape[1]
    size = query.shape[-1] ** -0.5 if scale is None else scale
    starts = zip(query_ends.tolist(), query_ends.tolist()[1:], key_ends.tolist(), key_ends.tolist()[1:], strict=False)
    for q_start, q_end, k_start, k_end in starts:
        rows, places = slice(q_start, q_end), slice(k_start, k_end)
        q = query[rows].transpose(0, 1)
        k, v = (part[places].transpose(0, 1).repeat_interleave(group, 0) for part in (key, value))
        # How many keys to the right of each key its query stands.
        ahead = torch.arange(k.shape[1] - q.shape[1], k.shape[1])[:, None] - torch.arange(k.shape[1])
        hidden = ahead < 0 if window_size[0] < 0 else (ahead < 0) | (ahead > window_size[0])
        yield rows, places, q, k, v, (q @ k.transpose(1, 2) * size).masked_fill(hidden, -torch.inf).softmax(-1)
