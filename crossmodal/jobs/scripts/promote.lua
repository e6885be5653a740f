-- Forget owners' messages that have left a queue, and send the held messages that they blocked.
-- Repairs what `start` cannot see: a message or a record that was deleted.
-- reads and writes: the owners' backlogs and sent sets in the queue, and their jobs
-- KEYS[1]: the owners with a backlog. ARGV 2 the queue, 3 max messages of one owner in the queue
-- returns the number of messages sent
local queue, window = ARGV[2], tonumber(ARGV[3])
for _, owner in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  local sent = queue_key(queue, 'sent:' .. owner)
  for _, waiting in ipairs(redis.call('SMEMBERS', sent)) do
    if redis.call('HGET', prefix .. ':job:' .. waiting, 'state') ~= 'queued' then
      redis.call('SREM', sent, waiting)
    end
  end
end
local count = 0
while count < 1000 and promote(queue, window) do count = count + 1 end
return count
