"""Loggers of runs: name in `--log` -> class, which is built from the folder of the logs."""

LOGGERS = {
    "csv": "sadp_bench.training.loggers.csv_file:CSV",
    "tensorboard": "sadp_bench.training.loggers.tensorboard:TensorBoard",
    "wandb": "sadp_bench.training.loggers.weights_and_biases:WandB",
}
FOLDER = "logs"  # folder of the logs, in the folder of the records
