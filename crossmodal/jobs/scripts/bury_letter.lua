-- Keep a message that cannot be run as a dead letter.
-- reads and writes: the letter, the dead letters
-- KEYS[1]: the letter. ARGV 2 its id, 3 retention_s, 4 ... its fields and their values
-- returns {'ok'}
redis.call('HSET', KEYS[1], 'at', stamp(now()), unpack(ARGV, 4))
redis.call('EXPIRE', KEYS[1], ARGV[3])
bury(id, now(), tonumber(ARGV[3]))
return {'ok'}
