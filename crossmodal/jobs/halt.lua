-- Have no more of a batch's messages taken, unless the batch is forgotten.
-- reads and writes: the batch
-- KEYS[1]: the batch
-- returns whether there is such a batch
local is_known = redis.call('EXISTS', KEYS[1])
if is_known == 1 then redis.call('HSET', KEYS[1], 'halted', 1) end
return is_known
