"""Tables, figures and the report, from data passed as arguments: no module reads a run folder."""
