"""Attention that keeps no weights: a kernel for TPUs, with T5's relative bias and its gradient.

softmax(query keys^T + mask_bias + relative_bias) values, in blocks of queries: a block's weights
over all keys are made and used up in a chip's vector memory. The backward pass makes them once
more, so that nothing is kept for it but what went in; of the arrays of a layer the weights are by
far the largest. Logits, softmax and the gradient of the bias are float32, products have the
operands' dtype, as in `layers.attention_weights`. On other devices the same is computed by XLA's
products, again without keeping the weights. Shape letters: see `layers.py`.
"""

import math

from flax import linen as nn
import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

FEWEST_QUERIES = 16  # Fewer, as in a decoding step, have little to keep.
MOST_WEIGHT_BYTES = 2**19  # of a block of queries
MOST_BIAS_BYTES = 2**22  # of one head's gradient of the bias, which stays in vector memory


def fits(query, keys, relative_bias):
    """Whether the kernel is for so many positions."""
    queries, keys = query.shape[2], keys.shape[2]
    biased = relative_bias is not None
    return queries >= FEWEST_QUERIES and (not biased or 4 * queries * keys <= MOST_BIAS_BYTES)


@jax.custom_vjp
def attend(query, keys, values, mask_bias, relative_bias):
    """softmax(query keys^T + mask_bias + relative_bias) values, [B, H, Q, D].

    Differentiated in all but the mask.

    Args:
      query: [B, H, Q, D].
      keys, values: [B, H, S, D].
      mask_bias: [1 or B, 1, 1 or Q, S]; 0 or `layers.MASKED`.
      relative_bias: [1, H, Q, S], or None.
    """
    return _on_each_device(_forward, query, keys, values, mask_bias, relative_bias)


def _attend_forward(*operands):
    return attend(*operands), operands


def _attend_backward(operands, cotangent):
    gradients = _on_each_device(_backward, *operands, cotangent)
    of_query, of_keys, of_values, of_relative = gradients
    return of_query, of_keys, of_values, jnp.zeros_like(operands[3]), of_relative


attend.defvjp(_attend_forward, _attend_backward)


def _on_each_device(function, query, keys, values, mask_bias, relative_bias, *cotangent):
    """Each device does its own rows and heads; only the gradient of the bias is added up."""
    operands = (query, keys, values, mask_bias, relative_bias, *cotangent)
    rows, heads = _axes("batch", query.shape[0]), _axes("heads", query.shape[1])
    if rows is None and heads is None:
        return function(*operands)
    whole, bias = PartitionSpec(rows, heads), PartitionSpec(None, heads)
    mask = PartitionSpec(rows if mask_bias.shape[0] > 1 else None)

    def of_own(*own):
        found = function(*own)
        if not cotangent or relative_bias is None or rows is None:
            return found
        *gradients, of_relative = found
        return *gradients, lax.psum(of_relative, rows)

    return jax.shard_map(
        of_own,
        in_specs=(whole, whole, whole, mask, bias, *(whole for _ in cotangent)),
        out_specs=(whole, whole, whole, bias) if cotangent else whole,
        check_vma=False,
    )(*operands)


def _axes(name, size):
    """The axes of the mesh that an axis of this size lies over, by the rules in force, or None."""
    mesh = jax.sharding.get_abstract_mesh()
    found = nn.logical_to_mesh_axes((name,))
    axes = found[0] if found else None
    names = (axes,) if isinstance(axes, str) else axes or ()
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    if not names or any(types.get(each) != AxisType.Auto for each in names):
        return None
    return axes if size % math.prod(mesh.shape[each] for each in names) == 0 else None


def _forward(*operands):
    return lax.platform_dependent(*operands, tpu=forward_kernel, default=plain)


def _backward(*operands):
    return lax.platform_dependent(*operands, tpu=backward_kernel, default=_plain_backward)


def plain(query, keys, values, mask_bias, relative_bias):
    """What the kernel computes, by XLA's products."""
    logits = jnp.einsum("bhqd,bhkd->bhqk", query, keys, preferred_element_type=jnp.float32)
    bias = mask_bias if relative_bias is None else mask_bias + relative_bias
    weights = jax.nn.softmax(logits + bias, axis=-1).astype(query.dtype)
    return jnp.einsum("bhqk,bhkd->bhqd", weights, values)


def _plain_backward(query, keys, values, mask_bias, relative_bias, cotangent):
    def of(query, keys, values, relative_bias):
        return plain(query, keys, values, mask_bias, relative_bias)

    return jax.vjp(of, query, keys, values, relative_bias)[1](cotangent)


def forward_kernel(query, keys, values, mask_bias, relative_bias, *, interpret=False):
    """`plain`, by Pallas; `interpret` runs it on any device."""
    size = _block(query, keys)
    given = (query, keys, values, mask_bias, relative_bias)
    operands = [operand for operand in given if operand is not None]

    def kernel(*refs):
        *inputs, result = refs
        query, keys, values, weights = _read(inputs)
        mixed = _product(weights.astype(values.dtype), values, 1, 0)
        result[...] = mixed.astype(result.dtype)

    def place(h, i, b):  # Rows last: their bias stays where it is.
        return b, h, i

    return pl.pallas_call(
        kernel,
        grid=(query.shape[1], query.shape[2] // size, query.shape[0]),
        in_specs=_specs(operands, size, place),
        out_specs=_specs(operands[:1], size, place)[0],
        out_shape=jax.ShapeDtypeStruct(query.shape, query.dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 3),
        interpret=interpret,
    )(*operands)


def backward_kernel(query, keys, values, mask_bias, relative_bias, cotangent, *, interpret=False):
    """Gradients of query, keys, values and relative bias, by Pallas.

    A head goes through all rows, and a row through its queries: what is added up, a row's
    gradients of keys and values and the head's of the bias, stays in vector memory meanwhile.
    """
    size = _block(query, keys)
    given = (query, keys, values, mask_bias, relative_bias)
    operands = [operand for operand in given if operand is not None]

    def kernel(*refs):
        count = len(operands)
        _add_gradients(refs[:count], refs[count][...], *refs[count + 1 :])

    def place(h, b, i):
        return b, h, i

    in_rows = _specs([query, keys, values], size, place)
    shapes = [
        jax.ShapeDtypeStruct(query.shape, query.dtype),
        jax.ShapeDtypeStruct(keys.shape, jnp.float32),
        jax.ShapeDtypeStruct(values.shape, jnp.float32),
    ]
    out_specs = [in_rows[0], in_rows[1], in_rows[2]]
    if relative_bias is not None:
        shapes.append(jax.ShapeDtypeStruct(relative_bias.shape, jnp.float32))
        head = pl.BlockSpec((None, None, *relative_bias.shape[2:]), lambda h, b, i: (0, h, 0, 0))
        out_specs.append(head)
    of_query, of_keys, of_values, *of_relative = pl.pallas_call(
        kernel,
        grid=(query.shape[1], query.shape[0], query.shape[2] // size),
        in_specs=[*_specs(operands, size, place), in_rows[0]],
        out_specs=out_specs,
        out_shape=shapes,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary")
        ),
        interpret=interpret,
    )(*operands, cotangent)
    gradients = of_query, of_keys.astype(keys.dtype), of_values.astype(values.dtype)
    return *gradients, of_relative[0] if of_relative else None


def _add_gradients(operands, cotangent, of_query, of_keys, of_values, of_relative=None):
    """Writes a block's gradient of the query, and adds its others to those of its row and head."""
    row, block, size = pl.program_id(1), pl.program_id(2), cotangent.shape[0]
    query, keys, values, weights = _read(operands)
    of_weights = _product(cotangent, values, 1, 1)
    mean = jnp.sum(weights * of_weights, axis=-1, keepdims=True)
    of_logits = weights * (of_weights - mean)
    rounded = of_logits.astype(query.dtype)
    of_query[...] = _product(rounded, keys, 1, 0).astype(of_query.dtype)

    @pl.when(block == 0)
    def _():
        of_keys[...] = jnp.zeros_like(of_keys)
        of_values[...] = jnp.zeros_like(of_values)

    of_keys[...] += _product(rounded, query, 0, 0)
    of_values[...] += _product(weights.astype(query.dtype), cotangent, 0, 0)
    if of_relative is None:
        return
    here = pl.ds(block * size, size)

    @pl.when(row == 0)
    def _():
        of_relative[here, :] = of_logits

    @pl.when(row > 0)
    def _():
        of_relative[here, :] += of_logits


def _block(query, keys):
    """Queries of a block: as many as may be, in whole tiles of a register."""
    queries, of_one = query.shape[2], keys.shape[2] * query.dtype.itemsize
    sizes = [size for size in range(16, queries + 1, 16) if queries % size == 0] or [queries]
    return max((size for size in sizes if size * of_one <= MOST_WEIGHT_BYTES), default=sizes[0])


def _specs(operands, size, place):
    """How `_read`'s operands are cut up: queries in blocks, keys never.

    Args:
      operands: query, keys, values, mask and perhaps the relative bias, or the first of them.
      size: queries of a block.
      place: the row, head and block of a step of the grid.
    """

    def of_queries(*step):
        return *place(*step), 0

    def of_keys(*step):
        row, head, _ = place(*step)
        return row, head, 0, 0

    specs = [pl.BlockSpec((None, None, size, operands[0].shape[-1]), of_queries)]
    specs += [pl.BlockSpec((None, None, *keys.shape[2:]), of_keys) for keys in operands[1:3]]
    for bias in operands[3:]:  # Both broadcast.

        def of_bias(*step, shape=bias.shape):
            steps = zip(place(*step), shape, strict=False)
            return *(where if extent > 1 else 0 for where, extent in steps), 0

        specs.append(pl.BlockSpec((None, None, min(size, bias.shape[2]), bias.shape[3]), of_bias))
    return specs


def _read(refs):
    """A block's query, its keys and values, and its weights, float32."""
    query, keys, values, *biases = (ref[...] for ref in refs)
    logits = _product(query, keys, 1, 1)
    for bias in biases:
        logits += bias
    shifted = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    return query, keys, values, shifted / jnp.sum(shifted, axis=-1, keepdims=True)


def _product(a, b, of_a, of_b):
    """Matrices contracted over these axes, in float32."""
    # Products of bfloat16 are exact, and the compiler of kernels refuses to be told so.
    precision = None if a.dtype == jnp.float32 else lax.Precision.DEFAULT
    return lax.dot_general(
        a,
        b,
        (((of_a,), (of_b,)), ((), ())),
        precision=precision,
        preferred_element_type=jnp.float32,
    )
