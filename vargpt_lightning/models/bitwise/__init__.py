"""The bitwise decoder: a next-scale transformer that reads an encoded prompt and predicts bits (Infinity).

What codes in bits are, and how pictures become them, belongs in `models.tokenizer`.
"""
