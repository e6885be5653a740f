-- Check that a submission would be accepted, by the commands that one needs.
-- reads and writes: the probe
-- KEYS[1]: the probe. ARGV 2 what it is of, 3 the seconds that it is kept
-- returns 1
redis.call('LPUSH', KEYS[1], '') -- first: after another write, Redis no longer refuses for memory
redis.call('LTRIM', KEYS[1], 0, 0)
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
