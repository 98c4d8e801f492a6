"""TensorBoard, MLflow and Weights & Biases, which follow a study's trials."""
