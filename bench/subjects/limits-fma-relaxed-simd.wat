;; What this engine multiplies and adds at most, as relaxed SIMD does: twelve independent sums of four, from registers alone. `rounds` is one or more; a round is
;; 96 FLOPs (FLOPS_OF_A_ROUND of wasm-limits.mjs).
(module
  (func (export "fma") (param $rounds i32) (param $x f32) (result f32)
    (local $a v128) (local $b v128)
    (local $s0 v128) (local $s1 v128) (local $s2 v128) (local $s3 v128) (local $s4 v128) (local $s5 v128)
    (local $s6 v128) (local $s7 v128) (local $s8 v128) (local $s9 v128) (local $s10 v128) (local $s11 v128)
    (local.set $a (f32x4.splat (local.get $x)))
    (local.set $b (f32x4.splat (f32.sub (f32.const 1) (local.get $x))))
    (loop $next
      (local.set $s0 (f32x4.relaxed_madd (local.get $s0) (local.get $a) (local.get $b)))
      (local.set $s1 (f32x4.relaxed_madd (local.get $s1) (local.get $a) (local.get $b)))
      (local.set $s2 (f32x4.relaxed_madd (local.get $s2) (local.get $a) (local.get $b)))
      (local.set $s3 (f32x4.relaxed_madd (local.get $s3) (local.get $a) (local.get $b)))
      (local.set $s4 (f32x4.relaxed_madd (local.get $s4) (local.get $a) (local.get $b)))
      (local.set $s5 (f32x4.relaxed_madd (local.get $s5) (local.get $a) (local.get $b)))
      (local.set $s6 (f32x4.relaxed_madd (local.get $s6) (local.get $a) (local.get $b)))
      (local.set $s7 (f32x4.relaxed_madd (local.get $s7) (local.get $a) (local.get $b)))
      (local.set $s8 (f32x4.relaxed_madd (local.get $s8) (local.get $a) (local.get $b)))
      (local.set $s9 (f32x4.relaxed_madd (local.get $s9) (local.get $a) (local.get $b)))
      (local.set $s10 (f32x4.relaxed_madd (local.get $s10) (local.get $a) (local.get $b)))
      (local.set $s11 (f32x4.relaxed_madd (local.get $s11) (local.get $a) (local.get $b)))
      (br_if $next (local.tee $rounds (i32.sub (local.get $rounds) (i32.const 1)))))
    (f32x4.extract_lane 0
      (f32x4.add (f32x4.add (f32x4.add (f32x4.add (f32x4.add (f32x4.add (f32x4.add (f32x4.add (f32x4.add (f32x4.add (f32x4.add (local.get $s0) (local.get $s1)) (local.get $s2)) (local.get $s3)) (local.get $s4)) (local.get $s5)) (local.get $s6)) (local.get $s7)) (local.get $s8)) (local.get $s9)) (local.get $s10)) (local.get $s11)))))
