"""The arithmetic of reinforcement learning on tokens: functions of tensors, and nothing else.

Rows are answers, columns their tokens: shape (B, T) unless said otherwise. `mask` is 1 on the
tokens that count, a prefix of each row, and 0 on the padding behind it.
"""
