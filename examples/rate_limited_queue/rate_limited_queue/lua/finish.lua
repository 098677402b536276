-- ARGV: queue id, job id, token or '' for the current lease. Answers 1, or 0: no such lease.
local id, job = ARGV[1], ARGV[2]
local place, remaining, token = record(id, job)
if not place or token == '' or (ARGV[3] ~= '' and ARGV[3] ~= token) then return 0 end
redis.call('ZREM', base .. 'a', lease(id, job, token))
redis.call('HDEL', base .. 'j:' .. id, job)
redis.call('HDEL', base .. 'p:' .. id, job)
redis.call('HINCRBY', base .. 'n', 'f', 1)
end_hold(id, token)
forget_if_empty(id)
return 1
