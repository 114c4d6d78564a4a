"""Tracing: how a cell's ``step`` becomes the graph of a ``Step``.

``trace.py`` runs the step on stand-ins under a recorder. Each class of recorders extends another:
``Meanings`` (what is known of tensors), ``Recorder`` (arithmetic, products and reductions),
``Preparing`` (what parameters alone determine), ``Moving`` (units that change places), ``Folding``
(units and rows in one dimension), ``Stretching`` (units that are repeated), ``Placing`` (indices)
and ``Surrogates`` (custom gradients).

What an operation of torch means is told by ``views.py``, ``pointwise.py``, ``reductions.py``, and
``composed.py`` for those made of others. ``copying.py`` lets comparisons of units with themselves
read copies, ``settling.py`` lowers what was recorded, and ``compare.py`` checks it against the step
itself. ``projecting.py`` looks at the projection.
"""
