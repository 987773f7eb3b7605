"""Sensitivity measures: what a unit loses under an option.

weight     ||W - W_q||^2 / ||W||^2, rounded to nearest          diagonal, hessian   weighted by the inputs (errors.py)
block      output error of the block                            kl                  of the whole model, nats a token
loss       nats of KL a token, additive: what the optimiser is given (losses.py)
"""
