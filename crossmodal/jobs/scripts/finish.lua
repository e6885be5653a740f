-- End a job; only its running attempt may.
-- reads and writes: the job, its events, its queue's queued and running sets and stats, dead
--   letters, its owner's lists, its batch, a delivery
-- ARGV 3 attempt, 4 succeeded|failed, 5 result|failure, 6 its JSON, 7 code or '', 8 retention_s,
--   9 '1' for a dead letter, 10 the items of a bulk job that have results
-- returns {'ok'} or {'refused', state, attempt}
local r = redis.call('HMGET', job, 'state', 'attempt', 'queue')
if r[1] ~= 'running' or r[2] ~= ARGV[3] then
  return {'refused', r[1] or 'unknown', r[2] or '0'}
end
finish(r[3], tonumber(r[2]), ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8],
  tonumber(ARGV[10]))
if ARGV[9] == '1' then bury(id, now(), tonumber(ARGV[8])) end
return {'ok'}
