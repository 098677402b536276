-- ARGV: queue id, interval (ms). Answers 1, or 0: the queue is not known.
local id, key = ARGV[1], base .. 's:' .. ARGV[1]
if redis.call('HEXISTS', key, 'i') == 0 then return 0 end
redis.call('HSET', key, 'i', ARGV[2])
line_up_again(id)
forget_if_empty(id)
return 1
