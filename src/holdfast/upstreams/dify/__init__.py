"""Kind `dify`: its chat applications."""
