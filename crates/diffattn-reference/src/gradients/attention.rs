//! The gradient of differential attention, row by row: with P_t the map of a term, c_t its
//! coefficient with λ in it, dO the gradient before the norm and dP = dO·Vᵀ, which all terms share,
//!
//! δ_t = Σ_j P_t dP, dc_t = δ_t, dS_t = c_t P_t∘(dP − δ_t), and dV = (Σ_t c_t P_t)ᵀ dO.
//!
//! It does: every option of [`AttentionSpec`]. It does not: give gradients to masks, lengths,
//! offsets, scale or softcap.

use crate::{AttentionSpec, Operands, Real, Row, Tensor, shape4};

/// What [`attention_backward`] returns, each shaped as what it belongs to.
#[derive(Clone, Debug)]
pub struct AttentionGradients<R> {
    /// [B, n_q, Lq, d].
    pub dq: Tensor<R>,
    /// [B, n_k, Lk, d].
    pub dk: Tensor<R>,
    /// [B, n_v, Lk, dv].
    pub dv: Tensor<R>,
    /// λ's own shape; a head of one term gives it nothing.
    pub dlambda: Option<Tensor<R>>,
    /// `[T]`, summed over the heads; where there is no λ.
    pub dcoefficients: Option<Tensor<R>>,
    /// `[channels]`, where the norm has a weight.
    pub dnorm_weight: Option<Tensor<R>>,
    /// The bias' own shape, summed over the terms and the axes that it repeats along; 0 where it is
    /// −Inf.
    pub dbias: Option<Tensor<R>>,
    /// `[H]` or `[H, T]`, as the sinks are.
    pub dsinks: Option<Tensor<R>>,
}

/// The gradients of Σ dy·y, y being `out` of [`crate::attention`]; dy is [B, H, Lq, channels].
///
/// A row that sees nothing gives nothing, whatever its dy and its λ.
pub fn attention_backward<R: Real>(
    spec: &AttentionSpec,
    dy: &Tensor<f64>,
) -> AttentionGradients<R> {
    let operands = Operands::<R>::new(spec);
    let [b_count, _, lq, _] = shape4(&spec.q);
    let shape = [b_count, spec.heads.len(), lq, spec.output_width()];
    assert_eq!(dy.shape, shape, "dy is shaped as y");
    let pass = Pass {
        spec,
        operands,
        dy: dy.cast(),
    };
    let mut gradients = AttentionGradients::zeros(spec);
    for b in 0..b_count {
        for h in 0..spec.heads.len() {
            for i in 0..lq {
                gradients.add_row(&pass, [b, h, i]);
            }
        }
    }
    gradients
}

/// What every row reads.
struct Pass<'a, R> {
    spec: &'a AttentionSpec,
    operands: Operands<R>,
    dy: Tensor<R>,
}

impl<R: Real> Pass<'_, R> {
    /// The row of an output head before its norm.
    fn out(&self, row: &Row<R>, [b, h, _]: [usize; 3]) -> Vec<R> {
        let v = &self.operands.v;
        let mut out = Vec::new();
        for &v_head in &self.spec.heads[h].v {
            let mut part = vec![R::ZERO; shape4(v)[3]];
            for (&j, &p) in row.keys.iter().zip(&row.diff) {
                for (y, &v) in part.iter_mut().zip(v.row(&[b, v_head, j])) {
                    *y += p * v;
                }
            }
            out.extend(part);
        }
        out
    }

    /// dO·Vᵀ over the keys that the row sees.
    fn dmap(&self, row: &Row<R>, [b, h, _]: [usize; 3], dout: &[R]) -> Vec<R> {
        let v = &self.operands.v;
        let width = shape4(v)[3];
        let of = |&j: &usize| {
            let mut sum = R::ZERO;
            for (n, &v_head) in self.spec.heads[h].v.iter().enumerate() {
                for (&d, &v) in dout[n * width..].iter().zip(v.row(&[b, v_head, j])) {
                    sum += d * v;
                }
            }
            sum
        };
        row.keys.iter().map(of).collect()
    }
}

impl<R: Real> AttentionGradients<R> {
    fn zeros(spec: &AttentionSpec) -> Self {
        let like = |x: &Tensor<f64>| Tensor::zeros(&x.shape);
        let weight = spec.norm.as_ref().and_then(|norm| norm.weight.as_ref());
        let coefficients = spec.lambda.is_none().then(|| spec.terms());
        Self {
            dq: like(&spec.q),
            dk: like(&spec.k),
            dv: like(&spec.v),
            dlambda: spec.lambda.as_ref().map(like),
            dcoefficients: coefficients.map(|terms| Tensor::zeros(&[terms])),
            dnorm_weight: weight.map(|weight| Tensor::zeros(&[weight.len()])),
            dbias: spec.bias.as_ref().map(like),
            dsinks: spec.sinks.as_ref().map(like),
        }
    }

    /// Adds another call's gradients of the same inputs, but those of a norm.
    pub(super) fn add(&mut self, other: &Self) {
        let sum = |x: &mut Tensor<R>, y: &Tensor<R>| {
            for (x, &y) in x.data.iter_mut().zip(&y.data) {
                *x += y;
            }
        };
        let sum_some = |x: &mut Option<Tensor<R>>, y: &Option<Tensor<R>>| {
            if let (Some(x), Some(y)) = (x, y) {
                sum(x, y);
            }
        };
        sum(&mut self.dq, &other.dq);
        sum(&mut self.dk, &other.dk);
        sum(&mut self.dv, &other.dv);
        sum_some(&mut self.dlambda, &other.dlambda);
        sum_some(&mut self.dcoefficients, &other.dcoefficients);
        sum_some(&mut self.dbias, &other.dbias);
        sum_some(&mut self.dsinks, &other.dsinks);
    }

    fn add_row(&mut self, pass: &Pass<R>, at: [usize; 3]) {
        let row = Row::new(pass.spec, &pass.operands, at);
        if row.empty {
            return;
        }
        let [b, h, _] = at;
        let mut dout = pass.dy.row(&at).to_vec();
        if let Some(norm) = &pass.spec.norm {
            let dweight = self.dnorm_weight.as_mut().map(|x| x.data.as_mut_slice());
            dout = norm.row_backward(&pass.out(&row, at), &dout, dweight);
        }
        let width = shape4(&pass.operands.v)[3];
        for (&j, &p) in row.keys.iter().zip(&row.diff) {
            for (n, &v_head) in pass.spec.heads[h].v.iter().enumerate() {
                let dv = self.dv.row_mut(&[b, v_head, j]);
                for (dv, &d) in dv.iter_mut().zip(&dout[n * width..]) {
                    *dv += p * d;
                }
            }
        }
        let dmap = pass.dmap(&row, at, &dout);
        for t in 0..row.maps.len() {
            self.add_term(pass, (&row, at), t, &dmap);
        }
    }

    /// What a term of a row gives to q, k, the bias, its sink and its coefficient.
    fn add_term(&mut self, pass: &Pass<R>, (row, at): (&Row<R>, [usize; 3]), t: usize, dmap: &[R]) {
        let [b, h, i] = at;
        let Some(coefficient) = row.coefficients[t] else {
            return;
        };
        let mut delta = R::ZERO;
        for (&p, &d) in row.maps[t].iter().zip(dmap) {
            delta += p * d;
        }
        if let Some(dcoefficients) = &mut self.dcoefficients {
            dcoefficients.data[t] += delta;
        }
        if let (1, Some(dlambda)) = (t, &mut self.dlambda) {
            let place = dlambda.place(&[b, i, h]);
            dlambda.data[place] += R::from_f64(pass.spec.heads[h].coefficients[1]) * delta;
        }
        if let Some(dsinks) = &mut self.dsinks {
            let place = match dsinks.shape[..] {
                [_] => h,
                [_, terms] => h * terms + t,
                ref other => panic!("sinks of shape {other:?}"),
            };
            // Its row of v is zero.
            dsinks.data[place] += coefficient * row.sinks[t] * (R::ZERO - delta);
        }
        for (n, &j) in row.keys.iter().enumerate() {
            let dscore = coefficient * row.maps[t][n] * (dmap[n] - delta);
            if let Some(dbias) = &mut self.dbias {
                let place = dbias.place(&[b, h, i, j]);
                dbias.data[place] += dscore;
            }
            self.add_score(pass, (at, j), t, dscore);
        }
    }

    /// dq and dk of one score, through softcap and scale.
    fn add_score(&mut self, pass: &Pass<R>, (at, j): ([usize; 3], usize), t: usize, dscore: R) {
        let [b, h, i] = at;
        let head = &pass.spec.heads[h];
        let (query, key) = ([b, head.q[t], i], [b, head.k[t], j]);
        let mut d = dscore;
        if let Some(cap) = pass.operands.softcap {
            let bent = (pass.operands.scaled(query, key) / cap).tanh();
            d = d * (R::ONE - bent * bent);
        }
        d = d * pass.operands.scale;
        let (q, k) = (pass.operands.q.row(&query), pass.operands.k.row(&key));
        for (dq, &k) in self.dq.row_mut(&query).iter_mut().zip(k) {
            *dq += d * k;
        }
        for (dk, &q) in self.dk.row_mut(&key).iter_mut().zip(q) {
            *dk += d * q;
        }
    }
}
