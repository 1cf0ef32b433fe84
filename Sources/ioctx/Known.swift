// What a report may not know.

/// A value, or null in JSON: the key is there either way.
struct Known<Value: Encodable & CustomStringConvertible>: Encodable {
    let value: Value?

    init(_ value: Value?) {
        self.value = value
    }

    var text: String { value.map(\.description) ?? "unknown" }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        if let value {
            try container.encode(value)
        } else {
            try container.encodeNil()
        }
    }
}
