-- ARGV: queue id, job id, token, lease (ms), 1 if the work begins now, else 0
-- Renews a lease; 0 where it is not the job's current one. Work that begins ends its hold, and
-- counts as the queue's last release: what waited for a worker must not come in a burst.
local id, job = ARGV[1], ARGV[2]
local place, remaining, token = record(id, job)
if not place or token == '' or token ~= ARGV[3] then return 0 end
redis.call('ZADD', base .. 'a', text(now + tonumber(ARGV[4]) * 1000), lease(id, job, token))
if ARGV[5] == '1' then
  local key = base .. 's:' .. id
  redis.call('HSET', key, 'l', text(now))
  if redis.call('HGET', key, 't') == token then redis.call('HDEL', key, 'h', 't') end
  line_up_again(id)
end
return 1
