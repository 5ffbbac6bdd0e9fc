"""Kind `ragflow`: all its wire formats, chats and agents."""
