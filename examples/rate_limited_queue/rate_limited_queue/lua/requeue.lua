-- ARGV: most leases to look at, most dead jobs to keep. Answers {expired leases, dead jobs}.
-- Jobs whose lease has ended get their place back; those without requeues left are dead.
local expired = redis.call(
  'ZRANGEBYSCORE', base .. 'a', '-inf', text(now), 'LIMIT', 0, tonumber(ARGV[1]))
local dead = 0
for _, member in ipairs(expired) do
  redis.call('ZREM', base .. 'a', member)
  local id, job, token = string.match(member, '^([^:]+):([^:]+):(.+)$')
  local place, remaining, current = record(id, job)
  if current == token then
    if remaining == '0' then
      -- The payload is JSON text already, and identifiers need no quoting.
      redis.call('ZADD', base .. 'd', text(now), id .. ':' .. job)
      redis.call('HSET', base .. 'D', id .. ':' .. job, '{"queue_id":"' .. id .. '","job_id":"'
        .. job .. '","died_at":' .. text(math.floor(now / 1000)) .. ',"payload":'
        .. (redis.call('HGET', base .. 'p:' .. id, job) or '{}') .. '}')
      redis.call('HDEL', base .. 'j:' .. id, job)
      redis.call('HDEL', base .. 'p:' .. id, job)
      redis.call('HINCRBY', base .. 'n', 'x', 1)
      end_hold(id, token)
      forget_if_empty(id)
      dead = dead + 1
    else
      if remaining ~= '-1' then remaining = text(tonumber(remaining) - 1) end
      redis.call('HINCRBY', base .. 'n', 'r', 1)
      end_hold(id, token)
      put_back(id, job, place, remaining)
    end
  end
end
local excess = dead > 0 and redis.call('ZCARD', base .. 'd') - tonumber(ARGV[2]) or 0
if excess > 0 then
  local oldest = redis.call('ZPOPMIN', base .. 'd', excess)
  for index = 1, #oldest, 2 do redis.call('HDEL', base .. 'D', oldest[index]) end
end
return {#expired, dead}
