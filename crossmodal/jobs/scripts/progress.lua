-- Record and publish the progress of a running attempt.
-- reads and writes: the job, and the stream of its events; not its history
-- reads: <prefix>:watched:<id>
-- ARGV 3 attempt, 4 the progress as JSON
-- returns {'ok', 1 if a client watches the job, else 0} or {'refused', state, attempt}
local r = redis.call('HMGET', job, 'state', 'attempt')
if r[1] ~= 'running' or r[2] ~= ARGV[3] then
  return {'refused', r[1] or 'unknown', r[2] or '0'}
end
redis.call('HSET', job, 'progress', ARGV[4])
tell('running', 'progress', ARGV[4])
return {'ok', redis.call('EXISTS', prefix .. ':watched:' .. id)}
