"""What the bundled models are worth, measured on objects and pictures that they never trained on.

Each measurement goes features -> statistics -> scores: numbers of one clip, numbers of one held-out input over its
clips, and means over all inputs. Whatever makes clips is a function, so the truth is measured like a model.
"""
