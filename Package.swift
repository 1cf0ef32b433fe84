// swift-tools-version: 6.3
import PackageDescription

/// Every module is compiled twice: as Embedded Swift for the drop-in libraries (trait `Dropin`),
/// and as ordinary Swift for the tool, the unit tests and the sanitizers.
let layer: [SwiftSetting] = [
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableExperimentalFeature("Embedded", .when(traits: ["Dropin"])),
    .unsafeFlags(["-wmo", "-Xfrontend", "-function-sections"], .when(traits: ["Dropin"])),
]

let package = Package(
    name: "ioctx",
    products: [
        .library(name: "LibAIO", type: .static, targets: ["LibAIO"]),
        .library(name: "LibIOCtx", type: .static, targets: ["LibAIO", "LibPosixAIO"]),
        .executable(name: "ioctx", targets: ["ioctx"]),
    ],
    traits: [
        .trait(name: "Dropin", description: "Compile the layer as Embedded Swift")
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
    ],
    targets: [
        .target(
            name: "CLibAIO",
            cSettings: [
                .unsafeFlags(["-Wall", "-Wextra", "-Werror", "-ffunction-sections"]),
                .define("IOCTX_DROPIN", .when(traits: ["Dropin"])),
            ]),
        .target(name: "JobTable", dependencies: ["CLibAIO"], swiftSettings: layer),
        .target(name: "Paths", dependencies: ["CLibAIO", "JobTable"], swiftSettings: layer),
        .target(
            name: "LinuxAIO", dependencies: ["CLibAIO", "JobTable", "Paths"],
            swiftSettings: layer),
        .target(
            name: "LibAIO", dependencies: ["CLibAIO", "LinuxAIO"],
            exclude: ["libaio.map", "libioctx.map"],
            swiftSettings: layer),
        .target(
            name: "CPosixAIO", dependencies: ["CLibAIO"],
            cSettings: [
                .unsafeFlags(["-Wall", "-Wextra", "-Werror", "-ffunction-sections"]),
                .define("IOCTX_DROPIN", .when(traits: ["Dropin"])),
            ]),
        .target(
            name: "PosixAIO", dependencies: ["CLibAIO", "CPosixAIO", "JobTable", "Paths"],
            swiftSettings: layer),
        .target(
            name: "LibPosixAIO", dependencies: ["CPosixAIO", "PosixAIO"],
            exclude: ["libposixaio.map"], swiftSettings: layer),
        .target(
            name: "CConformance", exclude: ["reference.txt"],
            cSettings: [.unsafeFlags(["-Wall", "-Wextra", "-Werror"])]),
        .target(
            name: "CTestBed", cSettings: [.unsafeFlags(["-Wall", "-Wextra", "-Werror"])]),
        .target(
            name: "TestBed", dependencies: ["CTestBed"],
            swiftSettings: [.treatAllWarnings(as: .error)]),
        .target(
            name: "Conformance", dependencies: ["CLibAIO", "CConformance", "CTestBed", "TestBed"],
            swiftSettings: [.treatAllWarnings(as: .error)]),
        .target(
            name: "CBenchmark", dependencies: ["CLibAIO"],
            cSettings: [.unsafeFlags(["-Wall", "-Wextra", "-Werror"])]),
        .target(
            name: "Benchmark",
            dependencies: [
                "CLibAIO", "CTestBed", "CBenchmark", "TestBed",
                .product(name: "Histogram", package: "hdrhistogram-swift"),
            ],
            swiftSettings: [.treatAllWarnings(as: .error)]),
        .executableTarget(
            name: "ioctx",
            dependencies: [
                "CLibAIO", "JobTable", "Paths", "LibAIO", "TestBed", "Conformance",
                "Benchmark",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: [.treatAllWarnings(as: .error)]),
        .testTarget(name: "BenchmarkTests", dependencies: ["Benchmark"]),
        .testTarget(name: "ConformanceTests", dependencies: ["Conformance"]),
        .testTarget(name: "ToolTests", dependencies: ["ioctx"]),
        .target(
            name: "TestSupport", dependencies: ["CLibAIO", "JobTable", "Paths"],
            path: "Tests/TestSupport",
            swiftSettings: [.treatAllWarnings(as: .error)]),
        .testTarget(name: "JobTableTests", dependencies: ["CLibAIO", "JobTable", "TestSupport"]),
        .testTarget(
            name: "PathsTests",
            dependencies: ["CLibAIO", "JobTable", "Paths", "TestBed", "TestSupport"]),
        .testTarget(
            name: "LinuxAIOTests",
            dependencies: ["CLibAIO", "JobTable", "Paths", "LinuxAIO", "LibAIO", "TestSupport"]),
        .testTarget(
            name: "PosixAIOTests",
            dependencies: [
                "CLibAIO", "CPosixAIO", "JobTable", "Paths", "PosixAIO", "TestSupport",
            ]),
    ]
)
