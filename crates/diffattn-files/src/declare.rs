//! Lists of weights: what a layer's weights are called, how they are shaped and which must be
//! there, written once per layer. Checking a checkpoint, taking weights in, inspecting and
//! converting all read the same list. Knows no layer, and no file.

/// Which weight of a list: what whoever made the list asks for it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(usize);

/// Whether a weight must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It must be there.
    Required,
    /// It may be there.
    Optional,
    /// It must not be there; the words say when, after "none".
    Refused(&'static str),
}

/// What may become of a weight's elements where a model is quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// They stay floats: vectors, norms, whatever is small and matters.
    Exact,
    /// They are those of a map within the model.
    Map,
    /// They are those of the embeddings or of the head, which are quantised less.
    End,
}

/// What a weight is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A linear map: `NAME.weight` `[outputs, inputs]` and, where it has one, `NAME.bias`
    /// `[outputs]`.
    Linear {
        /// Rows of the weight.
        outputs: usize,
        /// Columns of the weight.
        inputs: usize,
        /// Whether there must be a bias; `None` for a map that has no place for one.
        bias: Option<Need>,
    },
    /// A tensor of this shape.
    Tensor(Vec<usize>),
    /// One number, of shape `[]` or `[1]`.
    Number,
}

/// One weight of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Its name, of a linear map without `.weight`.
    pub name: String,
    /// Another name that it may have instead.
    pub also: Option<String>,
    /// What it is.
    pub kind: Kind,
    /// Whether it must be there.
    pub need: Need,
    /// Whether it may be quantised; the bias of a linear map never is.
    pub precision: Precision,
}

/// One tensor of a list: a weight, or the bias beside one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredTensor {
    /// Its name in a checkpoint.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether it must be there.
    pub need: Need,
    /// Whether it may be quantised.
    pub precision: Precision,
}

/// A list of weights in the making, in the order in which they are checked and taken in.
#[derive(Debug, Clone, Default)]
pub struct Declare {
    prefix: String,
    weights: Vec<Declared>,
}

impl Declare {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What `declare` lists, with `module` before every name.
    pub fn within<T>(&mut self, module: &str, declare: impl FnOnce(&mut Self) -> T) -> T {
        let len = self.prefix.len();
        self.prefix.push_str(module);
        let made = declare(self);
        self.prefix.truncate(len);
        made
    }

    fn add(&mut self, name: &str, kind: Kind, need: Need) -> Id {
        let precision = match kind {
            Kind::Linear { .. } => Precision::Map,
            Kind::Tensor(_) | Kind::Number => Precision::Exact,
        };
        self.weights.push(Declared {
            name: format!("{}{name}", self.prefix),
            also: None,
            kind,
            need,
            precision,
        });
        Id(self.weights.len() - 1)
    }

    /// A linear map `[outputs, inputs]`, which must be there. Where a model is quantised, so is it,
    /// unless [`Declare::precision`] says otherwise.
    pub fn linear(&mut self, name: &str, [outputs, inputs]: [usize; 2], bias: Option<Need>) -> Id {
        let kind = Kind::Linear {
            outputs,
            inputs,
            bias,
        };
        self.add(name, kind, Need::Required)
    }

    /// The same weight under either of two names.
    pub fn also(&mut self, Id(index): Id, name: &str) {
        self.weights[index].also = Some(format!("{}{name}", self.prefix));
    }

    /// The table of embeddings `[rows, width]`, which must be there.
    pub fn table(&mut self, name: &str, shape: [usize; 2]) -> Id {
        let id = self.tensor(name, &shape, Need::Required);
        self.precision(id, Precision::End);
        id
    }

    /// What may become of a weight where the model is quantised.
    pub fn precision(&mut self, Id(index): Id, precision: Precision) {
        self.weights[index].precision = precision;
    }

    /// A tensor of this shape.
    pub fn tensor(&mut self, name: &str, shape: &[usize], need: Need) -> Id {
        self.add(name, Kind::Tensor(shape.to_vec()), need)
    }

    /// One number.
    pub fn number(&mut self, name: &str, need: Need) -> Id {
        self.add(name, Kind::Number, need)
    }

    /// What is listed, in order.
    #[must_use]
    pub fn weights(&self) -> &[Declared] {
        &self.weights
    }

    /// A weight of the list.
    #[must_use]
    pub fn get(&self, Id(index): Id) -> &Declared {
        &self.weights[index]
    }

    /// The linear maps of the list, in order.
    pub fn linears(&self) -> impl Iterator<Item = Id> {
        let linear = |(index, weight): (usize, &Declared)| {
            matches!(weight.kind, Kind::Linear { .. }).then_some(Id(index))
        };
        self.weights.iter().enumerate().filter_map(linear)
    }

    /// Every tensor of the list, in order, a bias behind its weight.
    pub fn tensors(&self) -> impl Iterator<Item = DeclaredTensor> {
        self.weights.iter().flat_map(Declared::tensors)
    }
}

impl Declared {
    /// Its tensors: the weight, and the bias that may be beside it.
    #[must_use]
    pub fn tensors(&self) -> Vec<DeclaredTensor> {
        let tensor =
            |name: String, shape: Vec<usize>, need: Need, precision: Precision| DeclaredTensor {
                name,
                shape,
                need,
                precision,
            };
        let whole = |shape: Vec<usize>| tensor(self.weight(), shape, self.need, self.precision);
        match &self.kind {
            &Kind::Linear {
                outputs,
                inputs,
                bias,
            } => {
                let exact = Precision::Exact;
                let bias = bias.map(|need| tensor(self.bias(), vec![outputs], need, exact));
                let weight = whole(vec![outputs, inputs]);
                std::iter::once(weight).chain(bias).collect()
            }
            Kind::Tensor(shape) => vec![whole(shape.clone())],
            Kind::Number => vec![whole(Vec::new())],
        }
    }

    /// The name of the tensor: of a linear map that of its weight.
    #[must_use]
    pub fn weight(&self) -> String {
        match self.kind {
            Kind::Linear { .. } => format!("{}.weight", self.name),
            Kind::Tensor(_) | Kind::Number => self.name.clone(),
        }
    }

    /// The name of the bias of a linear map.
    #[must_use]
    pub fn bias(&self) -> String {
        format!("{}.bias", self.name)
    }

    /// The same weight under its other name, where it has one.
    #[must_use]
    pub fn renamed(&self) -> Option<Self> {
        self.also.as_ref().map(|name| Self {
            name: name.clone(),
            also: None,
            ..self.clone()
        })
    }

    /// Whether a tensor of that name is of this weight, whatever is needed of it.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        let names = std::iter::once(self.name.as_str()).chain(self.also.as_deref());
        match self.kind {
            Kind::Linear { .. } => {
                let stem = name
                    .strip_suffix(".weight")
                    .or_else(|| name.strip_suffix(".bias"));
                stem.is_some_and(|stem| names.into_iter().any(|known| known == stem))
            }
            Kind::Tensor(_) | Kind::Number => names.into_iter().any(|known| known == name),
        }
    }
}
