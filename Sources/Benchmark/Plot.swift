// Plots as inline SVG. Colours and text sizes are the page's style sheet's.

import Glibc
import TestBed

/// A position on an axis of powers, between 0 and 1.
struct PowerAxis {
    let low: Double
    let high: Double

    func position(_ value: Double) -> Double {
        guard value > low else { return 0 }
        return min(log(value / low) / log(high / low), 1)
    }
}

enum Plot {
    /// An element without contents.
    private static func element(_ name: String, _ attributes: [(String, String)]) -> String {
        "<\(name)" + attributes.map { " \($0.0)=\"\($0.1)\"" }.joined() + "/>"
    }

    private static func text(
        _ words: String, x: Double, y: Double, anchor: String = "middle"
    ) -> String {
        "<text x=\"\(Number.fixed(x, 1))\" y=\"\(Number.fixed(y, 1))\" text-anchor=\"\(anchor)\">"
            + XML.escaped(words) + "</text>"
    }

    private static func line(
        _ kind: String, _ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double
    ) -> String {
        element(
            "line",
            [
                ("class", kind), ("x1", Number.fixed(x1, 1)), ("y1", Number.fixed(y1, 1)),
                ("x2", Number.fixed(x2, 1)), ("y2", Number.fixed(y2, 1)),
            ])
    }

    private static func frame(_ width: Double, _ height: Double, _ what: String, _ inside: String)
        -> String
    {
        "<svg viewBox=\"0 0 \(Number.fixed(width, 0)) \(Number.fixed(height, 0))\" role=\"img\" "
            + "aria-label=\"\(XML.escaped(what))\">\(inside)</svg>"
    }

    // MARK: Ratios

    static let ratioAxis = PowerAxis(low: 0.125, high: 8)

    /// A bar from the least to the greatest ratio, with its median, a line at 1 and the goal. It is
    /// stretched to whatever width there is, so it has no text.
    static func ratio(_ spread: Spread, goal: Double?) -> String {
        func x(_ value: Double) -> Double { ratioAxis.position(value) * 1000 }
        var inside = [0.25, 0.5, 2, 4].map { line("grid", x($0), 0, x($0), 20) }.joined()
        inside += line("one", x(1), 0, x(1), 20)
        if let goal { inside += line("goal", x(goal), 0, x(goal), 20) }
        let left = x(spread.least)
        inside += element(
            "rect",
            [
                ("class", "range"), ("x", Number.fixed(left, 1)), ("y", "7"),
                ("width", Number.fixed(max(x(spread.most) - left, 2), 1)), ("height", "6"),
            ])
        inside += line("median", x(spread.median), 2, x(spread.median), 18)
        return "<svg class=\"ratio\" viewBox=\"0 0 1000 20\" preserveAspectRatio=\"none\" "
            + "aria-hidden=\"true\">\(inside)</svg>"
    }

    // MARK: Distributions

    private static let width = 340.0
    private static let height = 150.0
    private static let margin = (left: 8.0, right: 8.0, top: 16.0, bottom: 20.0)
    private static let binsPerDecade = 12.0
    private static let leastShare = 0.001

    /// How often each time was seen, on an axis of powers of ten.
    static func distributions(_ what: String, _ sides: [(kind: String, times: Distribution)])
        -> String?
    {
        // What is too rare to be seen would only make the axis longer.
        let bins = sides.map { shares(of: $0.times).filter { $0.value >= leastShare } }
        let all = bins.flatMap { $0.keys }
        guard let low = all.min(), let high = all.max() else { return nil }
        // Whole decades, and a bin beyond, so that the curves come down again.
        let first = floor(Double(low - 1) / binsPerDecade) * binsPerDecade
        let last = max(ceil(Double(high + 2) / binsPerDecade) * binsPerDecade, first + 1)
        let peak = bins.flatMap { $0.values }.max() ?? 1
        let base = height - margin.bottom
        func x(_ bin: Double) -> Double {
            margin.left + (bin - first) / (last - first) * (width - margin.left - margin.right)
        }
        func y(_ share: Double) -> Double { base - share / peak * (base - margin.top) }

        var inside = ""
        for decade in stride(from: first, through: last, by: binsPerDecade) {
            inside += line("grid", x(decade), margin.top, x(decade), base)
            let anchor = decade == first ? "start" : decade == last ? "end" : "middle"
            inside += text(
                duration(pow(10, decade / binsPerDecade)), x: x(decade), y: height - 5,
                anchor: anchor)
        }
        for (side, shares) in zip(sides, bins) where !shares.isEmpty {
            var path = "M\(Number.fixed(x(first), 1)) \(Number.fixed(base, 1))"
            for bin in Int(first)...Int(last) {
                path +=
                    "L\(Number.fixed(x(Double(bin)), 1)) "
                    + Number.fixed(y(shares[bin] ?? 0), 1)
            }
            inside += element("path", [("class", "area \(side.kind)"), ("d", path + "Z")])
        }
        inside += text(what, x: margin.left, y: 11, anchor: "start")
        return frame(width, height, what, inside)
    }

    /// The share of each bin, by its number.
    static func shares(of times: Distribution) -> [Int: Double] {
        var counts: [Int: Double] = [:]
        var total = 0.0
        for (value, count) in times.pairs {
            counts[Int((log10(Double(max(value, 1))) * binsPerDecade).rounded()), default: 0] +=
                Double(count)
            total += Double(count)
        }
        return counts.mapValues { $0 / total }
    }

    static func duration(_ nanoseconds: Double) -> String {
        switch nanoseconds {
        case ..<1e3: Number.text(nanoseconds) + " ns"
        case ..<1e6: Number.text(nanoseconds / 1e3) + " µs"
        case ..<1e9: Number.text(nanoseconds / 1e6) + " ms"
        default: Number.text(nanoseconds / 1e9) + " s"
        }
    }

    // MARK: Curves

    struct Point {
        let x: Double
        /// The median, the least and the greatest.
        let y: (median: Double, least: Double, most: Double)
    }

    /// Rates by a number, which is on an axis of powers.
    static func curves(
        _ what: String, xLabel: String, _ sides: [(kind: String, points: [Point])]
    ) -> String? {
        let xs = Set(sides.flatMap { $0.points.map(\.x) }).sorted()
        guard let low = xs.first, let high = xs.last, low < high else { return nil }
        let peak = roundedUpForAxis(sides.flatMap { $0.points.map(\.y.most) }.max() ?? 1)
        let (left, top, bottom, right) = (48.0, 12.0, 34.0, 18.0)
        let (width, height) = (Self.width, 210.0)
        let axis = PowerAxis(low: low, high: high)
        func x(_ value: Double) -> Double { left + axis.position(value) * (width - left - right) }
        func y(_ value: Double) -> Double {
            height - bottom - value / peak * (height - bottom - top)
        }

        var inside = ""
        for part in 0...4 {
            let value = peak * Double(part) / 4
            inside += line("grid", left, y(value), width - right, y(value))
            inside += text(rate(value), x: left - 5, y: y(value) + 4, anchor: "end")
        }
        for value in xs { inside += text(Number.text(value), x: x(value), y: height - 20) }
        inside += text(xLabel, x: (left + width - right) / 2, y: height - 5)
        for side in sides {
            let points = side.points.map {
                "\(Number.fixed(x($0.x), 1)),\(Number.fixed(y($0.y.median), 1))"
            }
            inside += element(
                "polyline",
                [("class", "curve \(side.kind)"), ("points", points.joined(separator: " "))])
            for point in side.points {
                inside += line(
                    "whisker \(side.kind)", x(point.x), y(point.y.least), x(point.x),
                    y(point.y.most))
                inside += element(
                    "circle",
                    [
                        ("class", "dot \(side.kind)"), ("cx", Number.fixed(x(point.x), 1)),
                        ("cy", Number.fixed(y(point.y.median), 1)), ("r", "3.5"),
                    ])
            }
        }
        return frame(width, height, what, inside)
    }

    /// The next number that reads well and has readable quarters.
    private static func roundedUpForAxis(_ value: Double) -> Double {
        let power = pow(10, floor(log10(max(value, 1))))
        return ([1, 2, 4, 6, 8, 10].first { $0 * power >= value } ?? 10) * power
    }

    static func rate(_ value: Double) -> String {
        switch value {
        case ..<1e4: Number.text(value)
        case ..<1e6: Number.text(value / 1e3) + " k"
        default: Number.text(value / 1e6) + " M"
        }
    }
}
