// Proves that the page is whole: well-formed, with every case, and with nothing from elsewhere.

import Foundation
import FoundationXML
import Testing

@testable import Benchmark

@Suite struct PageTests {
    /// A run in which every case was measured, the other way round in its second half.
    private func results(_ cases: [Case]) -> RunResults {
        var results = RunResults(
            machine: Machine(kernel: "6.18 <&\"", folder: "/tmp"), other: "Linux", layer: "a & b",
            file: "/tmp", rounds: 2, seconds: 0.4)
        for (index, one) in cases.enumerated() {
            var result = CaseResult(one)
            for round in 1...2 {
                var side = Measurement()
                side.operations = 1000 * round * (index + 1)
                side.seconds = 1
                side.itemBytes = 100
                for time in 1...100 { side.submit.record(UInt64(time * time * round)) }
                side.completion = side.submit
                result.add(other: one.isOurs ? nil : side, layer: side)
            }
            results.add(result)
        }
        return results
    }

    private func parsed(_ html: String) throws -> PageReader {
        let reader = PageReader()
        let parser = XMLParser(data: Data(html.utf8))
        parser.delegate = reader
        try #require(parser.parse(), "\(String(describing: parser.parserError))")
        return reader
    }

    @Test func everyCaseIsThere() throws {
        let page = try parsed(Page(results(Catalog.all)).html)
        for one in Catalog.all { #expect(page.text.contains(one.name)) }
        #expect(page.elements["circle", default: 0] == 2 * Curve.all.flatMap(\.points).count)
        #expect(page.elements["path", default: 0] > 0)
    }

    @Test func nothingIsFetched() throws {
        let page = try parsed(Page(results(Catalog.all)).html)
        for element in ["script", "link", "img", "iframe", "object", "use", "image"] {
            #expect(page.elements[element] == nil)
        }
        #expect(!page.attributes.contains { $0 == "src" || $0 == "href" })
        #expect(!page.text.contains("url(") && !page.text.contains("@import"))
    }

    @Test func coordinatesAreNumbers() throws {
        let html = Page(results(Catalog.all)).html
        #expect(!html.contains("nan") && !html.contains("inf\""))
    }

    @Test func skippedAndFailedCasesSayWhy() throws {
        var results = results([])
        var skipped = CaseResult(Catalog.all[0])
        skipped.skip("needs <root>")
        var failed = CaseResult(Catalog.all[1])
        failed.fail("died & gone")
        results.add(skipped)
        results.add(failed)
        let page = try parsed(Page(results).html)
        #expect(page.text.contains("needs <root>") && page.text.contains("died & gone"))
    }

    @Test func everyCurveIsOfCases() {
        let names = Set(Catalog.all.map(\.name))
        for curve in Curve.all {
            for point in curve.points { #expect(names.contains(point.name)) }
        }
    }
}

private final class PageReader: NSObject, XMLParserDelegate {
    var elements: [String: Int] = [:]
    var attributes: Set<String> = []
    var text = ""

    func parser(
        _ parser: XMLParser, didStartElement element: String, namespaceURI: String?,
        qualifiedName: String?, attributes: [String: String]
    ) {
        elements[element, default: 0] += 1
        self.attributes.formUnion(attributes.keys)
    }

    func parser(_ parser: XMLParser, foundCharacters text: String) {
        self.text += text
    }
}
