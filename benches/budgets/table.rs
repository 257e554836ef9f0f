//! The table: figures beside each other, and whether the budget was kept.

use crate::figures::Mapping;

/// A row; each figure stands for 1, 5 and 20 services, or alone where they make no difference.
pub struct Row {
    name: String,
    digits: usize,
    ours: Vec<f64>,
    compose: Vec<f64>,
    floor: Vec<f64>,
    budget: Vec<f64>,
}

impl Row {
    /// A row with our figures, to be shown with so many decimal digits.
    pub fn new(name: &str, digits: usize, ours: impl Into<Vec<f64>>) -> Self {
        let (name, ours) = (name.to_owned(), ours.into());
        Self { name, digits, ours, compose: Vec::new(), floor: Vec::new(), budget: Vec::new() }
    }

    pub fn compose(mut self, figures: Vec<f64>) -> Self {
        self.compose = figures;
        self
    }

    pub fn floor(mut self, figures: Vec<f64>) -> Self {
        self.floor = figures;
        self
    }

    /// At most these; one for each of ours, or one for all.
    pub fn budget(mut self, figures: &[f64]) -> Self {
        self.budget = figures.to_vec();
        self
    }

    /// "met", or which of our figures missed it.
    fn verdict(&self) -> String {
        if self.budget.is_empty() {
            return String::new();
        }
        let budgets = self.budget.iter().chain(std::iter::repeat(&self.budget[0]));
        let missed: Vec<_> = self
            .ours
            .iter()
            .zip(budgets)
            .filter(|(ours, budget)| rounded(**ours, self.digits) > **budget)
            .map(|(ours, _)| shown(&[*ours], self.digits))
            .collect();
        if missed.is_empty() { "met".to_owned() } else { format!("missed: {}", missed.join(", ")) }
    }
}

/// As it is shown, so that the verdict is about what can be read.
fn rounded(figure: f64, digits: usize) -> f64 {
    format!("{figure:.digits$}").parse().unwrap_or(figure)
}

fn shown(figures: &[f64], digits: usize) -> String {
    figures.iter().map(|figure| format!("{figure:.digits$}")).collect::<Vec<_>>().join(" / ")
}

/// Prints the table as Markdown, columns under each other.
pub fn print(rows: &[Row]) {
    let head = ["1 / 5 / 20 services", "Cotter", "docker-compose", "engine alone", "budget", ""];
    let mut lines: Vec<[String; 6]> = vec![head.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| {
        let figures = |of: &[f64]| shown(of, row.digits);
        let budget = row.budget.iter().map(|b| format!("{b}")).collect::<Vec<_>>().join(" / ");
        let budget = if budget.is_empty() { budget } else { format!("≤ {budget}") };
        [
            row.name.clone(),
            figures(&row.ours),
            figures(&row.compose),
            figures(&row.floor),
            budget,
            row.verdict(),
        ]
    }));
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    for (n, line) in lines.iter().enumerate() {
        let cells: Vec<_> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("| {} |", cells.join(" | "));
        if n == 0 {
            let rules: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
            println!("| {} |", rules.join(" | "));
        }
    }
}

/// Prints what an agent's memory stands in, KiB.
pub fn print_mappings(services: usize, mappings: &[Mapping]) {
    println!("\n{services} services, KiB            size    PSS  dirty");
    let whole = mappings.iter().map(|mapping| mapping.pss).sum();
    let line =
        |what: &str, size: u64, pss: u64, dirty: u64| println!("{what:<22} {size:>6} {pss:>6} {dirty:>6}");
    for Mapping { what, size, pss, dirty } in mappings.iter().filter(|mapping| mapping.pss > 0) {
        line(what, *size, *pss, *dirty);
    }
    line("all", 0, whole, 0);
}
