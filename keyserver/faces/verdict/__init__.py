"""The verdict for mail servers and policy engines: by Postfix's socketmap, and by HTTP."""
