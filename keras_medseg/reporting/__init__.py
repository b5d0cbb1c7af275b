"""Tables, figures and the report, from data handed in; nothing here reads a run folder."""
