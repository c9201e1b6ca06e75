;; What memory can do at most in this engine: a loop that only reads, and one that copies. Both take a count of bytes that is a
;; multiple of 128.
(module
  (memory (export "memory") 1)

  (func (export "read") (param $from i32) (param $bytes i32) (result i64)
    (local $end i32)
    (local $a v128) (local $b v128) (local $c v128) (local $d v128)
    (local.set $end (i32.add (local.get $from) (local.get $bytes)))
    (loop $next
      (local.set $a (i64x2.add (local.get $a) (v128.load (local.get $from))))
      (local.set $b (i64x2.add (local.get $b) (v128.load offset=16 (local.get $from))))
      (local.set $c (i64x2.add (local.get $c) (v128.load offset=32 (local.get $from))))
      (local.set $d (i64x2.add (local.get $d) (v128.load offset=48 (local.get $from))))
      (local.set $a (i64x2.add (local.get $a) (v128.load offset=64 (local.get $from))))
      (local.set $b (i64x2.add (local.get $b) (v128.load offset=80 (local.get $from))))
      (local.set $c (i64x2.add (local.get $c) (v128.load offset=96 (local.get $from))))
      (local.set $d (i64x2.add (local.get $d) (v128.load offset=112 (local.get $from))))
      (br_if $next (i32.lt_u (local.tee $from (i32.add (local.get $from) (i32.const 128))) (local.get $end))))
    (i64x2.extract_lane 0
      (i64x2.add (i64x2.add (local.get $a) (local.get $b)) (i64x2.add (local.get $c) (local.get $d)))))

  (func (export "copy") (param $to i32) (param $from i32) (param $bytes i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $from) (local.get $bytes)))
    (loop $next
      (v128.store (local.get $to) (v128.load (local.get $from)))
      (v128.store offset=16 (local.get $to) (v128.load offset=16 (local.get $from)))
      (v128.store offset=32 (local.get $to) (v128.load offset=32 (local.get $from)))
      (v128.store offset=48 (local.get $to) (v128.load offset=48 (local.get $from)))
      (v128.store offset=64 (local.get $to) (v128.load offset=64 (local.get $from)))
      (v128.store offset=80 (local.get $to) (v128.load offset=80 (local.get $from)))
      (v128.store offset=96 (local.get $to) (v128.load offset=96 (local.get $from)))
      (v128.store offset=112 (local.get $to) (v128.load offset=112 (local.get $from)))
      (local.set $to (i32.add (local.get $to) (i32.const 128)))
      (br_if $next (i32.lt_u (local.tee $from (i32.add (local.get $from) (i32.const 128))) (local.get $end))))))
