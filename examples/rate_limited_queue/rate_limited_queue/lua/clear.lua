-- ARGV: queue id, most jobs, place of the last job to remove ('' at the first call)
-- Removes waiting jobs, in chunks; active ones stay. Answers {removed, last place}.
local id, queue = ARGV[1], base .. 'q:' .. ARGV[1]
local last = ARGV[3]
if last == '' then last = redis.call('HGET', base .. 's:' .. id, 'q') or '0' end
local jobs = redis.call('ZRANGEBYSCORE', queue, '-inf', last, 'LIMIT', 0, tonumber(ARGV[2]))
if #jobs > 0 then
  redis.call('ZREM', queue, unpack(jobs))
  redis.call('HDEL', base .. 'j:' .. id, unpack(jobs))
  redis.call('HDEL', base .. 'p:' .. id, unpack(jobs))
  redis.call('HINCRBY', base .. 'n', 'w', -#jobs)
  if redis.call('EXISTS', queue) == 0 then redis.call('ZREM', base .. 'r', id) end
  forget_if_empty(id)
end
return {#jobs, last}
