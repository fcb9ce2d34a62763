"""What is measured layer by layer, in figures: for TensorBoard and the report."""

LAYERS = {  # by name: title, quantities with their words, caption
    "relu": (
        "What ReLU puts out",
        {"relu_mean": "mean", "relu_sd": "sd", "relu_skew": "skewness", "dead": "dead, share"},
        "What ReLU puts out, layer by layer: mean, standard deviation and skewness over images, channels and "
        "positions, and the share of channels that are 0 for all of the batch.",
    ),
    "norm": (
        "What the normalization layers put out",
        {"norm_mean": "mean", "norm_sd": "sd", "norm_skew": "skewness"},
        "What the normalization layer puts out, layer by layer: mean, standard deviation and skewness over images, "
        "channels and positions.",
    ),
    "affine": (
        "Scales and shifts of the normalization layers",
        {"gamma_mean": "γ, mean", "gamma_sd": "γ, sd", "beta_mean": "β, mean", "beta_sd": "β, sd"},
        "Scales γ and shifts β of the normalization layers: mean and standard deviation over a layer's numbers.",
    ),
    "weights": (
        "Weights and gradients of the convolutions",
        {"weight_norm": "norm ‖W‖", "stable_rank": "stable rank", "gradient_norm": "gradient norm"},
        "Convolutions: norm and stable rank of the weights, and the norm of their gradient on one fixed batch. Where a "
        "norm follows, the network is the same for every scale of W, and lr / ‖W‖² is the effective learning rate.",
    ),
}
