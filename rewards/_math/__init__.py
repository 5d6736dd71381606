"""The helpers of math_answer.py, pure functions: from how an answer is spelled to whether it is the right one.

Each needs only those before it: text, arithmetic, reader, fallback, values, shapes, compare, finished.
"""
