"""The experiment of dcabes2020."""
