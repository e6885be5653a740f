"""What the HTTP servers share: who needs a key, limits on connections and bodies, manners."""
