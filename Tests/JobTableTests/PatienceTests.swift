// Looking before sleeping: that it ends, and that it is given up where it does not pay.

import JobTable
import Testing

@Suite struct PatienceTests {
    /// One wait that is over when it is asked the `overAt`-th time.
    private func wait(
        _ patience: borrowing Patience, overAt: Int = .max, mayLook: Bool = true
    ) -> (isOver: Bool, asked: Int) {
        var asked = 0
        let isOver = patience.look(while: { mayLook }) {
            asked += 1
            return asked >= overAt
        }
        return (isOver, asked)
    }

    @Test("It looks until it is over, again and again while that pays") func paying() {
        let patience = Patience()
        for _ in 0..<100 {
            let wait = wait(patience, overAt: 3)
            #expect(wait.isOver && wait.asked == 3)
        }
    }

    @Test("After each look in vain in a row, twice as many waits begin without one") func vain() {
        let patience = Patience()
        for skipped in [1, 3, 7, 15, 31, 63, 127, 255, 255] {
            let look = wait(patience)
            #expect(!look.isOver && look.asked > 1)
            for _ in 0..<skipped {
                let wait = wait(patience)
                #expect(!wait.isOver && wait.asked == 1)
            }
        }
        #expect(wait(patience, overAt: 2).isOver, "a look that pays")
        #expect(wait(patience, overAt: 2).isOver, "and another at once")
    }

    @Test("Where it may not look, it has not looked in vain") func forbidden() {
        let patience = Patience()
        for _ in 0..<100 {
            let wait = wait(patience, mayLook: false)
            #expect(!wait.isOver && wait.asked == 1)
        }
        #expect(wait(patience, overAt: 2).isOver)
        #expect(wait(patience, overAt: 1, mayLook: false).isOver, "what is there is there")
    }
}
