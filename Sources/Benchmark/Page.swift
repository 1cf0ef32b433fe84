// The results as one HTML page, which needs nothing but itself. It is XML as well, so that a test
// can prove it whole.

import TestBed

public struct Page {
    private let results: RunResults

    public init(_ results: RunResults) {
        self.results = results
    }

    private static func tag(_ name: String, _ kind: String? = nil, _ inside: String) -> String {
        "<\(name)\(kind.map { " class=\"\($0)\"" } ?? "")>\(inside)</\(name)>\n"
    }

    public var html: String {
        """
        <!DOCTYPE html>
        <html lang="en" xmlns="http://www.w3.org/1999/xhtml">
        <head>
        <meta charset="utf-8"/>
        <meta name="viewport" content="width=device-width, initial-scale=1"/>
        <title>ioctx bench</title>
        <style>
        \(Self.style)
        </style>
        </head>
        <body>
        <main>
        \(head)\(ratios)\(curves)\(distributions)\(numbers)\(unmeasured)</main>
        </body>
        </html>

        """
    }

    private var measured: [CaseResult] { results.cases.filter { $0.status == .measured } }

    private func isCurve(_ result: CaseResult) -> Bool { result.name.hasPrefix("curve/") }

    // MARK: Parts

    private var head: String {
        let lines = measured.flatMap(\.lines)
        let judged = lines.compactMap(\.isReached)
        let machine = results.machine
        let facts = [
            ("System", "Linux \(machine.kernel), \(machine.processors) × \(machine.processor)"),
            ("Files", "\(machine.fileSystem), \(results.file)"),
            ("Other side", results.other), ("Layer", results.layer),
            ("Rounds", "\(results.rounds) of \(Number.text(results.seconds)) s a side"),
        ]
        return Self.tag("h1", nil, "ioctx bench")
            + Self.tag(
                "p", "summary",
                "<strong>\(judged.count { $0 }) of \(judged.count)</strong> goals reached. "
                    + "<span class=\"key other\">other side</span> "
                    + "<span class=\"key layer\">layer</span>")
            + Self.tag(
                "dl", nil,
                facts.map { "<dt>\($0.0)</dt><dd>\(XML.escaped($0.1))</dd>" }.joined())
    }

    private var ratios: String {
        let parts: [(String, String, [Goal.Quantity])] = [
            ("Throughput", "Layer to other side; further right is faster.", [.rate]),
            (
                "Time inside io_submit", "Layer to other side; further left is shorter.",
                [.submitMean, .submitP99]
            ),
            (
                "Time to completion", "Layer to other side; further left is shorter.",
                [.completionP50]
            ),
        ]
        return parts.map { title, words, quantities in
            let rows = measured.filter { !isCurve($0) }.flatMap { result in
                result.lines.filter { quantities.contains($0.quantity) }.compactMap {
                    row(result.name, $0)
                }
            }.joined()
            if rows.isEmpty { return "" }
            return Self.tag(
                "section", nil,
                Self.tag("h2", nil, title)
                    + Self.tag(
                        "p", "words",
                        "\(words) The bar is the range of the rounds, the mark in it their median; "
                            + "the line is 1, the dashed line the goal. The axis has powers of 2, from "
                            + "1/8 to 8; what is beyond is at its end.")
                    + Self.tag("div", "ratios", rows))
        }.joined()
    }

    private func row(_ name: String, _ line: CaseResult.Line) -> String? {
        guard let ratio = line.ratio else { return nil }
        let range = "\(Number.text(ratio.least)) – \(Number.text(ratio.most))"
        let title = name + (line.quantity == .rate ? "" : ", \(line.quantity.words)")
        return Self.tag(
            "div", "row",
            "<span class=\"name\">\(XML.escaped(title))</span>"
                + "<span class=\"value\"><strong>\(Number.text(ratio.median))</strong> \(range)"
                + "</span>" + Plot.ratio(ratio, goal: line.bound) + verdict(line))
    }

    private func verdict(_ line: CaseResult.Line) -> String {
        guard let goal = line.goal, let isReached = line.isReached else {
            return "<span class=\"verdict\"></span>"
        }
        return "<span class=\"verdict \(isReached ? "good" : "bad")\">\(isReached ? "✓" : "✗") "
            + "\(goal)</span>"
    }

    private var curves: String {
        let plots = Curve.all.compactMap { curve -> String? in
            func points(_ side: KeyPath<CaseResult, CaseResult.Side>) -> [Plot.Point] {
                curve.points.compactMap { x, name in
                    guard let result = measured.first(where: { $0.name == name }),
                        let median = Statistics.median(result[keyPath: side].perSecond),
                        let least = result[keyPath: side].perSecond.min(),
                        let most = result[keyPath: side].perSecond.max()
                    else { return nil }
                    return Plot.Point(x: Double(x), y: (median, least, most))
                }
            }
            let plot = Plot.curves(
                curve.title, xLabel: curve.xLabel,
                [("other", points(\.other)), ("layer", points(\.layer))])
            return plot.map {
                Self.tag("figure", nil, Self.tag("figcaption", nil, curve.title) + $0)
            }
        }.joined()
        if plots.isEmpty { return "" }
        return Self.tag(
            "section", nil,
            Self.tag("h2", nil, "Scaling")
                + Self.tag("p", "words", "Operations in a second, up; medians with their ranges.")
                + Self.tag("div", "plots", plots))
    }

    private var distributions: String {
        let cards = measured.filter { !isCurve($0) }.compactMap { result -> String? in
            let plots = [
                ("inside the call that submits", \CaseResult.Side.submit),
                ("from there to completion", \CaseResult.Side.completion),
            ].compactMap { what, path in
                Plot.distributions(
                    what,
                    [
                        ("other", result.other[keyPath: path].distribution),
                        ("layer", result.layer[keyPath: path].distribution),
                    ])
            }.joined()
            if plots.isEmpty { return nil }
            return Self.tag(
                "figure", nil, Self.tag("figcaption", nil, XML.escaped(result.name)) + plots)
        }.joined()
        if cards.isEmpty { return "" }
        return Self.tag(
            "section", nil,
            Self.tag("h2", nil, "Latency")
                + Self.tag("p", "words", "How often each time was seen, over all rounds.")
                + Self.tag("div", "plots", cards))
    }

    private var numbers: String {
        let columns = [
            "case", "side", "a second", "submit p50", "p99", "completion p50", "p99", "p99.9",
            "CPU each", "system calls each",
        ]
        let rows = measured.map { result in
            [("other", result.other), ("layer", result.layer)].filter {
                !$0.1.perSecond.isEmpty
            }.map { name, side in
                func time(_ latency: CaseResult.Latency, _ percentile: Double) -> String {
                    latency.distribution.isEmpty
                        ? "" : Plot.duration(latency.distribution.percentile(percentile))
                }
                let cells = [
                    Statistics.median(side.perSecond).map(Plot.rate) ?? "",
                    time(side.submit, 50), time(side.submit, 99), time(side.completion, 50),
                    time(side.completion, 99), time(side.completion, 99.9),
                    side.cpuNanosecondsEach.map(Plot.duration) ?? "",
                    side.systemCalls.map(Number.text) ?? "",
                ]
                return "<tr><th>\(XML.escaped(result.name))</th><td class=\"key \(name)\">"
                    + "\(name)</td>" + cells.map { "<td>\($0)</td>" }.joined() + "</tr>\n"
            }.joined()
        }.joined()
        if rows.isEmpty { return "" }
        let head = "<tr>" + columns.map { "<th>\($0)</th>" }.joined() + "</tr>\n"
        return Self.tag(
            "section", nil,
            Self.tag("h2", nil, "Numbers")
                + Self.tag(
                    "div", "scroll",
                    "<table><thead>\(head)</thead><tbody>\(rows)</tbody></table>"))
    }

    private var unmeasured: String {
        let items = results.cases.filter { $0.status != .measured }.map {
            Self.tag(
                "li", nil, XML.escaped("\($0.name): \($0.status.rawValue), \($0.reason ?? "")"))
        }.joined()
        return items.isEmpty
            ? ""
            : Self.tag(
                "section", nil, Self.tag("h2", nil, "Not measured") + Self.tag("ul", nil, items))
    }

    // MARK: Style

    private static let style = """
        :root { color-scheme: light dark; --back: #fff; --ink: #1c2024; --faint: #60666c;
          --rule: #d5dade; --other: #c2570c; --layer: #1d62c9; --good: #17702f; --bad: #b3261e; }
        @media (prefers-color-scheme: dark) {
          :root { --back: #14171a; --ink: #e6e9ec; --faint: #9aa2aa; --rule: #343a40;
            --other: #f0883e; --layer: #6cabf7; --good: #56c26d; --bad: #ff7b72; } }
        * { box-sizing: border-box; }
        body { margin: 0; background: var(--back); color: var(--ink);
          font: 15px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
        main { max-width: 1160px; margin: 0 auto; padding: 16px; }
        h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .25rem; }
        dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 12px; margin: 0; }
        dt, .words { color: var(--faint); } dd, .words { margin: 0 0 .5rem; }
        .key::before { content: ""; display: inline-block; width: .7em; height: .7em;
          margin-right: .35em; border-radius: 2px; background: currentColor; }
        .key.other { color: var(--other); } .key.layer { color: var(--layer); }
        .row { display: grid; grid-template-columns: 15rem 1fr 11rem 9rem; gap: 0 12px;
          align-items: center; padding: 3px 0; border-top: 1px solid var(--rule); }
        .row svg { grid-column: 2; grid-row: 1; } .row .name { grid-column: 1; grid-row: 1; }
        .row .value { grid-column: 3; grid-row: 1; } .row .verdict { grid-column: 4; grid-row: 1; }
        .value, .verdict, td { font-variant-numeric: tabular-nums; }
        .value { color: var(--faint); } .value strong { color: var(--ink); }
        .good { color: var(--good); } .bad { color: var(--bad); }
        svg { display: block; width: 100%; height: auto; } svg.ratio { height: 20px; }
        svg line, svg polyline { vector-effect: non-scaling-stroke; }
        svg text { fill: var(--faint); font-size: 11px; }
        .one { stroke: var(--ink); } .goal { stroke: var(--good); stroke-dasharray: 3 3; }
        .range { fill: var(--layer); fill-opacity: .4; }
        .median { stroke: var(--layer); stroke-width: 3; }
        .grid { stroke: var(--rule); }
        .area { stroke-width: 1.5; fill-opacity: .22; }
        .area.other { fill: var(--other); stroke: var(--other); }
        .area.layer { fill: var(--layer); stroke: var(--layer); }
        .curve { fill: none; stroke-width: 2; } .whisker { stroke-width: 1; }
        .curve.other, .whisker.other { stroke: var(--other); } .dot.other { fill: var(--other); }
        .curve.layer, .whisker.layer { stroke: var(--layer); } .dot.layer { fill: var(--layer); }
        .plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr));
          gap: 20px; }
        figure { margin: 0; } figcaption { font-weight: 600; }
        .scroll { overflow-x: auto; }
        table { border-collapse: collapse; font-size: 13px; overflow-wrap: normal; }
        th, td { padding: 3px 8px; text-align: right; white-space: nowrap;
          border-bottom: 1px solid var(--rule); }
        th:first-child, td:nth-child(2) { text-align: left; } tbody th { font-weight: 400; }
        @media (max-width: 760px) {
          .row { grid-template-columns: 1fr auto; padding: 6px 0; }
          .row .name { grid-column: 1; grid-row: 1; } .row .verdict { grid-column: 2; grid-row: 1; }
          .row svg { grid-column: 1 / 3; grid-row: 2; }
          .row .value { grid-column: 1 / 3; grid-row: 3; } }
        """
}
