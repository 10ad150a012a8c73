"""How good the bundled models are, measured on objects and pictures that they never trained on.

Each measurement goes features -> statistics -> scores: numbers for one clip, numbers for one held-out input over its
clips, and means over all inputs. Whatever makes clips is a function, so the ground truth is measured like a model.
"""
