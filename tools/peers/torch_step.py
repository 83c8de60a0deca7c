"""One training step of the joint-recall models in PyTorch, for comparison with `hax bench peer`.

Written the way such models are usually written in PyTorch, and the way the paper's released code treats its
data: a padded batch, the recurrence as a parallel scan over whole sequences (Mamba) or in chunks (Mamba2),
attention with dense L x L masks. Reads a JSON request on standard input, prints a JSON object with the
seconds of every timed step:

    {"config": model configuration, "batch": {tokens, labels, targets, lengths, padded},
     "true_length": run sequence after sequence instead of padding, "threads": n, "steps": n}
"""
import json
import math
import re
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


def scan_in_place(decay, term):
    """h_t = decay_t h_{t-1} + term_t along dimension 1, left in `term`; `decay` is used up.

    Every second entry takes in the one before it; these make a scan of half the length, and the entries
    between them follow from it: 2 L combinations in 2 log L rounds.
    """
    length = decay.shape[1]
    if length < 2:
        return
    odd = decay[:, 1::2], term[:, 1::2]
    last = 2 * (length // 2)
    odd[1].addcmul_(odd[0], term[:, 0:last:2])
    odd[0].mul_(decay[:, 0:last:2])
    scan_in_place(*odd)
    if length > 2:
        term[:, 2::2].addcmul_(decay[:, 2::2], term[:, 1:length - 1:2])


class ParallelScan(torch.autograd.Function):
    """The gradient of a scan is the same scan, backwards in time."""

    @staticmethod
    def forward(ctx, decay, term):
        state = term.clone()
        scan_in_place(decay.clone(), state)
        ctx.save_for_backward(decay, state)
        return state

    @staticmethod
    def backward(ctx, grad):
        decay, state = ctx.saved_tensors
        dterm = grad.flip(1)
        scan_in_place(F.pad(decay[:, 1:], (0, 0, 0, 0, 0, 1)).flip(1), dterm)
        dterm = dterm.flip(1)
        ddecay = torch.zeros_like(decay)
        torch.mul(dterm[:, 1:], state[:, :-1], out=ddecay[:, 1:])
        return ddecay, dterm


def conv_silu(x, weight, bias):
    width = weight.shape[-1]
    y = F.conv1d(x.transpose(1, 2), weight, bias, padding=width - 1, groups=weight.shape[0])
    return F.silu(y[..., : x.shape[1]].transpose(1, 2))


def latest(mask, count):
    """Of the True entries of each row only the last `count`."""
    return mask & (mask.flip(-1).to(torch.int32).cumsum(-1).flip(-1) <= count)


class SparseBranch(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.parts = c["sparse_arch"].split("+")
        self.keys = c["sparse_keys"] // len(self.parts)
        self.dilation = c["data_max_length"] // self.keys
        self.columns = c["num_hash"] or 8
        inner, states = c["intermediate_size"], c["state_size"]
        self.xx_proj = nn.Linear(inner, 2 * states, bias=False)
        self.E = nn.Parameter(torch.ones(inner))
        if "key_selection" in self.parts:
            width = 2 * states
            self.score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                                       nn.Linear(width, 1))

    def bins(self, x, directions):
        mean = x.cumsum(1) / torch.arange(1, x.shape[1] + 1).view(1, -1, 1)
        bits = (F.normalize(x - mean, dim=-1) @ directions > 0).long()
        return (bits << torch.arange(directions.shape[1])).sum(-1)

    def forward(self, u, real):
        batch, length, _ = u.shape
        K, Q = self.xx_proj(u).chunk(2, -1)
        K = K / math.sqrt(K.shape[-1])
        position = torch.arange(length)
        causal = position.view(-1, 1) >= position
        mask = torch.zeros(batch, length, length, dtype=torch.bool)
        loss = u.new_zeros(())
        for part in self.parts:
            if part == "full":
                mask |= causal
            elif part == "sliding_window":
                mask |= causal & (position.view(-1, 1) - position < self.keys)
            elif part == "sink":
                mask |= causal & (position < self.keys)
            elif part == "dilated":
                mask |= causal & (position % self.dilation == self.dilation - 1)
            elif part == "sign_bin_lsh":
                directions = torch.randn(K.shape[-1], self.columns)
                with torch.no_grad():
                    same = self.bins(Q, directions).unsqueeze(-1) == self.bins(K, directions).unsqueeze(1)
                    mask |= latest(causal & same, self.keys)
            elif part == "key_selection":
                seen = F.normalize(Q.detach().cumsum(1), dim=-1)
                score = self.score(torch.cat((K.detach(), seen), -1)).squeeze(-1)
                with torch.no_grad():
                    prefix = score.unsqueeze(1).masked_fill(~causal, -math.inf)
                    best = prefix.topk(min(self.keys, length), -1).indices
                    mask |= torch.zeros_like(mask).scatter_(-1, best, True) & causal
                loss = self.ranking(score, Q.detach(), K.detach(), real)
            else:
                raise ValueError(f"no sparse branch {part} here")
        weight = (Q @ K.transpose(1, 2)).masked_fill(~mask, torch.finfo(u.dtype).min).softmax(-1)
        weight = weight * mask.any(-1, keepdim=True)
        return weight @ u * self.E, loss

    def ranking(self, score, Q, K, real):
        """Pairwise loss on randomly chosen keys against the attention that they would attract."""
        count = min(self.keys, int(real.sum(-1).min()))
        chosen = torch.rand(score.shape).masked_fill(~real, -1).topk(count, 1).indices
        attracted = (Q @ K.gather(1, chosen.unsqueeze(-1).expand(-1, -1, K.shape[-1])).transpose(1, 2)).sigmoid()
        visible = torch.arange(score.shape[1]).view(1, -1, 1) >= chosen.unsqueeze(1)
        target = (attracted * visible).sum(1)
        gap = target.unsqueeze(-1) - target.unsqueeze(-2)
        picked = score.gather(1, chosen)
        return F.binary_cross_entropy_with_logits(picked.unsqueeze(-1) - picked.unsqueeze(-2), (gap.sign() + 1) / 2)


class Mamba(nn.Module):
    def __init__(self, c):
        super().__init__()
        hidden, inner, self.states, self.rank = (c["hidden_size"], c["intermediate_size"], c["state_size"],
                                                 c["time_step_rank"])
        self.in_proj = nn.Linear(hidden, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, c["conv_kernel"], groups=inner)
        self.x_proj = nn.Linear(inner, self.rank + 2 * self.states, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, self.states + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, hidden, bias=False)
        self.sparse = SparseBranch(c) if c["sparse_arch"] != "none" else None
        nn.init.constant_(self.dt_proj.bias, -4)

    def forward(self, x, real):
        x, z = self.in_proj(x).chunk(2, -1)
        u = conv_silu(x * real.unsqueeze(-1), self.conv.weight, self.conv.bias) * real.unsqueeze(-1)
        low, B, C = self.x_proj(u).split((self.rank, self.states, self.states), -1)
        dt = F.softplus(self.dt_proj(low))
        decay = torch.exp(dt.unsqueeze(-1) * -torch.exp(self.A_log))
        state = ParallelScan.apply(decay, (dt * u).unsqueeze(-1) * B.unsqueeze(2))
        y = (state @ C.unsqueeze(-1)).squeeze(-1) + self.D * u
        loss = u.new_zeros(())
        if self.sparse is not None:
            attended, loss = self.sparse(u, real)
            y = y + attended
        return self.out_proj(y * F.silu(z)), loss


class Mamba2(nn.Module):
    def __init__(self, c):
        super().__init__()
        hidden, self.inner, self.states = c["hidden_size"], c["intermediate_size"], c["state_size"]
        self.heads, self.chunk = c["num_heads"], c["chunk_size"]
        mixed = self.inner + 2 * self.states
        self.in_proj = nn.Linear(hidden, self.inner + mixed + self.heads, bias=False)
        self.conv = nn.Conv1d(mixed, mixed, c["conv_kernel"], groups=mixed)
        self.dt_bias = nn.Parameter(torch.full((self.heads,), -4.0))
        self.A_log = nn.Parameter(torch.arange(1.0, self.heads + 1).log())
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = RMSNorm(self.inner)
        self.out_proj = nn.Linear(self.inner, hidden, bias=False)
        self.sparse = SparseBranch(c) if c["sparse_arch"] != "none" else None

    def ssd(self, x, dt, B, C):
        """x [batch, L, heads, P]: attention-like products inside a chunk, a state between chunks."""
        length = x.shape[1]
        decay = dt * -torch.exp(self.A_log)
        state, pieces = None, []
        for begin in range(0, length, self.chunk):
            at = slice(begin, begin + self.chunk)
            Bc, Cc, xc = B[:, at], C[:, at], (x * dt.unsqueeze(-1))[:, at]
            total = decay[:, at].cumsum(1).transpose(1, 2)
            causal = torch.ones(total.shape[-1], total.shape[-1], dtype=torch.bool).tril()
            gap = (total.unsqueeze(-1) - total.unsqueeze(-2)).masked_fill(~causal, -math.inf)
            within = (Cc @ Bc.transpose(1, 2)).unsqueeze(1) * gap.exp()
            y = torch.einsum("bhij,bjhp->bihp", within, xc)
            rest = (total[..., -1:] - total).exp()
            gained = torch.einsum("bjn,bhj,bjhp->bhpn", Bc, rest, xc)
            if state is None:
                state = gained
            else:
                y = y + torch.einsum("bin,bhi,bhpn->bihp", Cc, total.exp(), state)
                state = total[..., -1, None, None].exp() * state + gained
            pieces.append(y)
        return torch.cat(pieces, 1) + self.D.unsqueeze(-1) * x

    def forward(self, x, real):
        x = x * real.unsqueeze(-1)
        z, mixed, dt = self.in_proj(x).split((self.inner, self.inner + 2 * self.states, self.heads), -1)
        mixed = conv_silu(mixed, self.conv.weight, self.conv.bias) * real.unsqueeze(-1)
        u, B, C = mixed.split((self.inner, self.states, self.states), -1)
        heads = u.reshape(*u.shape[:2], self.heads, -1)
        y = self.ssd(heads, F.softplus(dt + self.dt_bias), B, C).reshape(u.shape)
        loss = u.new_zeros(())
        if self.sparse is not None:
            attended, loss = self.sparse(u, real)
            y = y + attended
        return self.out_proj(self.norm(y * F.silu(z))), loss


class Attention(nn.Module):
    """Causal, rotary; over a window in Samba, over everything before in a Transformer."""

    def __init__(self, c):
        super().__init__()
        hidden, self.heads = c["hidden_size"], c["attn"]["num_heads"]
        self.window, self.theta = c["attn"].get("window_size", math.inf), c["attn"]["rope_theta"]
        self.qkv = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(3))
        self.o_proj = nn.Linear(hidden, hidden, bias=False)

    def turn(self, x):
        half = x.shape[-1] // 2
        angle = torch.arange(x.shape[-2]).unsqueeze(-1) * self.theta ** (-torch.arange(half) / half)
        cos, sin = angle.cos(), angle.sin()
        a, b = x[..., :half], x[..., half:]
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    def forward(self, x, real):
        batch, length, hidden = x.shape
        q, k, v = (p(x).reshape(batch, length, self.heads, -1).transpose(1, 2) for p in self.qkv)
        gap = torch.arange(length).view(-1, 1) - torch.arange(length)
        allowed = (gap >= 0) & (gap < self.window) & real[:, None, None, :]
        score = self.turn(q) @ self.turn(k).transpose(-1, -2) / math.sqrt(q.shape[-1])
        y = score.masked_fill(~allowed, torch.finfo(x.dtype).min).softmax(-1) @ v
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, hidden)), x.new_zeros(())


class GatedMlp(nn.Module):
    def __init__(self, hidden, width):
        super().__init__()
        self.gate, self.up = (nn.Linear(hidden, width, bias=False) for _ in range(2))
        self.down = nn.Linear(width, hidden, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    def __init__(self, c, layer):
        super().__init__()
        hidden, kind = c["hidden_size"], c["model_type"]
        attention = kind == "transformer" or layer in c.get("attn", {}).get("layers", [])
        self.norm = RMSNorm(hidden)
        self.mixer = Attention(c) if attention else Mamba2(c) if kind == "mamba2" else Mamba(c)
        self.mlp = None
        if kind in ("samba", "transformer"):
            width = c["intermediate_size"] if kind == "transformer" else \
                (hidden * c["hidden_ratio"] * 2 // 3 + 255) // 256 * 256
            self.mlp_norm, self.mlp = RMSNorm(hidden), GatedMlp(hidden, width)

    def forward(self, x, real):
        y, loss = self.mixer(self.norm(x), real)
        x = x + y
        return (x if self.mlp is None else x + self.mlp(self.mlp_norm(x))), loss


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embedding = nn.Embedding(c["vocab_size"], c["hidden_size"])
        nn.init.normal_(self.embedding.weight, std=c["initializer_range"])
        self.blocks = nn.ModuleList(Block(c, layer) for layer in range(c["num_hidden_layers"]))
        self.norm = RMSNorm(c["hidden_size"])

    def forward(self, tokens, real):
        x, losses = self.embedding(tokens), 0
        for block in self.blocks:
            x, loss = block(x, real)
            losses = losses + loss
        return self.norm(x) @ self.embedding.weight.t(), losses


def arrays(batch):
    """The packed batch as padded arrays: tokens, labels, which positions are targets, which are real."""
    shape = len(batch["lengths"]), batch["padded"]
    flat = torch.tensor(batch["tokens"]), torch.tensor(batch["labels"]), torch.zeros(len(batch["tokens"]), dtype=torch.bool)
    flat[2][torch.tensor(batch["targets"])] = True
    tokens, labels = torch.full(shape, 3), torch.full(shape, 3)
    wanted, real = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    begin = 0
    for row, length in enumerate(batch["lengths"]):
        for padded, packed in zip((tokens, labels, wanted), flat):
            padded[row, :length] = packed[begin:begin + length]
        real[row, :length] = True
        begin += length
    return tokens, labels, wanted, real


def blas_library():
    """The library that PyTorch's products go to, as the dynamic loader found it; MKL may be linked in."""
    if torch.backends.mkl.is_available():
        return "MKL"
    with open("/proc/self/maps") as maps:
        loaded = maps.read()
    for pattern, name in (("openblas", "OpenBLAS"), ("blis", "BLIS"), (r"libblas\.so|/blas/", "reference BLAS")):
        if re.search(pattern, loaded):
            return name
    return "unknown BLAS"


def main():
    request = json.load(sys.stdin)
    if request.get("version_only"):
        torch.ones(64, 64) @ torch.ones(64, 64)  # the library is loaded at first use
        print(json.dumps({"version": torch.__version__, "blas": blas_library()}))
        return
    torch.set_num_threads(request["threads"])
    torch.manual_seed(0)
    model = Model(request["config"])
    adam = torch.optim.AdamW(model.parameters(), lr=1e-6)
    tokens, labels, wanted, real = arrays(request["batch"])
    targets = int(wanted.sum())

    def backward(rows, length):
        at = rows, slice(0, length)
        logits, ranking = model(tokens[at], real[at])
        loss = F.cross_entropy(logits[wanted[at]], labels[at][wanted[at]], reduction="sum") / targets
        loss = loss + 0.1 * ranking * (rows.stop - rows.start) / len(tokens)
        loss.backward()
        return float(loss.detach())

    def step():
        adam.zero_grad()
        if request["true_length"]:
            lengths = enumerate(request["batch"]["lengths"])
            loss = sum(backward(slice(row, row + 1), length) for row, length in lengths)
        else:
            loss = backward(slice(0, len(tokens)), tokens.shape[1])
        adam.step()
        return loss

    step()
    seconds, loss = [], 0.0
    for _ in range(request["steps"]):
        start = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds": seconds, "loss": loss, "version": f"torch {torch.__version__}, {blas_library()}",
                      "parameters": sum(p.numel() for p in model.parameters())}))


if __name__ == "__main__":
    main()
